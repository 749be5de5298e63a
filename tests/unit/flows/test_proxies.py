"""Proxies of the environment: servers of this machine are reached directly, and what cannot work is named."""

from __future__ import annotations

import http.server
import threading
import urllib.request

import httpx
import pytest

from flows.proxies import reach_loopback_directly, require_usable_proxies
from nanochat.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "lower", "upper"),
    [
        ({}, "127.0.0.1,localhost,::1", "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*", "no_proxy": ""}, "*", "*"),
        ({"no_proxy": "a.example, *"}, "*", "*"),
        ({"NO_PROXY": "[::1],[fd00::1]"}, *["::1,fd00::1,127.0.0.1,localhost"] * 2),
        ({"NO_PROXY": "a.example, localhost"}, *["a.example,localhost,127.0.0.1,::1"] * 2),
        (
            {"NO_PROXY": "a.example", "no_proxy": "b.example"},
            "b.example,127.0.0.1,localhost,::1",
            "a.example,127.0.0.1,localhost,::1",
        ),
    ],
)
def test_loopback_joins_the_exceptions_and_none_of_the_users_is_lost(given, lower, upper):
    env = dict(given)
    for _ in range(2):  # a child process does it again
        reach_loopback_directly(env)
        assert (env.get("no_proxy", ""), env.get("NO_PROXY", "")) == (lower, upper)


@pytest.fixture
def local_server():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_a_server_of_this_machine_is_reached_past_a_proxy_that_is_dead(proxy, local_server, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(httpx.TransportError):
        httpx.get(local_server)
    env: dict[str, str] = {}
    reach_loopback_directly(env)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert httpx.get(local_server).text == "here"
    with urllib.request.urlopen(local_server, timeout=30) as answer:
        assert answer.read() == b"here"


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_no_client_takes_is_named_without_its_password(name):
    with pytest.raises(ConfigError, match=f"{name} is socks://proxy.example:1080; a proxy has to") as raised:
        require_usable_proxies({name: "socks://me:secret@proxy.example:1080"})
    assert f"write {name}=socks5://proxy.example:1080" in str(raised.value.hint)
    assert "secret" not in f"{raised.value}{raised.value.hint}"


@pytest.mark.parametrize("address", ["http://me:secret@proxy.example:port", "http://me:secret@[::1"])
def test_an_address_that_no_client_can_read_is_named_without_its_password(address):
    with pytest.raises(ConfigError, match="HTTP_PROXY is not the address of a proxy: ") as raised:
        require_usable_proxies({"HTTP_PROXY": address})
    assert "secret" not in f"{raised.value}{raised.value.hint}"


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"HTTP_PROXY": "proxy.example:3128", "ALL_PROXY": "socks5h://proxy.example:1080"},
        {"ALL_PROXY": "socks://proxy.example", "NO_PROXY": "*"},
    ],
)
def test_usable_and_unused_proxies_are_left_alone(env):
    require_usable_proxies(env)
