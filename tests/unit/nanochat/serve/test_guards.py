"""Who may ask: keys, hosts, origins, and the size of a request, before anything is parsed."""

from __future__ import annotations

import socket

import httpx
import pytest

from nanochat.serve import guards
from nanochat.serve.serve_settings import RequestLimits, ServeSettings
from tests.support.serving import server_here, tiny_engine

KEY = "correct-horse-battery"
ASKED = {"messages": [{"role": "user", "content": "Hello"}]}
PATHS = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/chat/completions", "/stats", "/metrics",
         "/openapi.json", "/nowhere")  # fmt: skip


@pytest.fixture(scope="module")
def locked():
    """A server that needs a key, takes short requests, and lets one other origin use it."""
    limits = RequestLimits(body_bytes=2000, body_s=0.3)
    settings = ServeSettings(key=KEY, limits=limits, allow_origins=("https://chat.example",))
    with (
        server_here(settings, tiny_engine) as (url, _),
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
    ):
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_nothing_of_the_model_is_served(locked, path):
    for headers in ({}, {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Basic {KEY}"},
                    {"authorization": "Bearer é"}):  # fmt: skip
        answer = locked.get(path, headers={k: v.encode() for k, v in headers.items()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text


def test_with_the_key_requests_are_answered_and_the_page_needs_none(locked):
    for scheme in ("Bearer", "bearer"):
        answer = locked.post("/v1/chat/completions", json=ASKED, headers={"authorization": f"{scheme} {KEY}"})
        assert answer.status_code == 200
    assert [locked.get(path).status_code for path in ("/", "/page/index.html", "/health")] == [200] * 3


def test_a_large_request_is_refused_whether_it_says_its_size_or_not(locked):
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    part = b" " * 100_000  # together more than what is on its way at any time
    for content in (b" " * 2001, iter([b" " * 1000] * 3), 80 * part, iter([part] * 80)):
        answer = locked.post("/v1/chat/completions", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), (KEY, 413)])
def test_who_sends_much_and_reads_late_reads_why_it_is_refused(locked, key, status):
    body = b" " * 8_000_000
    with socket.create_connection((locked.base_url.host, locked.base_url.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n" % (key.encode(), len(body))
        )
        raw.sendall(body)
        assert raw.recv(1000).startswith(b"HTTP/1.1 %d" % status)


def test_who_is_refused_before_all_has_come_holds_no_connection(locked, monkeypatch):
    monkeypatch.setattr(guards, "_DISCARDING_S", 0.1)
    with socket.create_connection((locked.base_url.host, locked.base_url.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n"
            b"authorization: Bearer " + KEY.encode() + b"\r\ncontent-length: 100000\r\n\r\n{"
        )
        answer = b""
        while part := raw.recv(1000):  # until the server closes it
            answer += part
        assert answer.startswith(b"HTTP/1.1 415") and b"connection: close" in answer.lower()


def test_a_request_that_never_ends_is_refused(locked):
    with socket.create_connection((locked.base_url.host, locked.base_url.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer " + KEY.encode() + b"\r\ncontent-length: 10\r\n\r\n{"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 408")


def test_an_allowed_origin_is_let_in_by_preflight_and_answer(locked):
    origin = {"origin": "https://chat.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = locked.options("/v1/chat/completions", headers=origin | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
    answer = locked.post(
        "/v1/chat/completions", json=ASKED, headers=origin | {"authorization": f"Bearer {KEY}"}
    )
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    # Errors too, or a page could not say what is wrong.
    assert (
        "access-control-allow-origin" in locked.post("/v1/chat/completions", json={}, headers=origin).headers
    )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[::1", "http://127.0.0.1:1"])
def test_pages_of_other_origins_may_not_use_the_server(client, origin):
    answer = client.post("/v1/chat/completions", json=ASKED, headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


def test_the_servers_own_page_may(client):
    own = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/v1/chat/completions", json=ASKED, headers=own).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1", "10.0.0.1", ""]
)
def test_without_a_key_only_names_of_this_machine_are_served(client, host):
    answer = client.get("/health", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "127.0.0.2:1"])
def test_all_names_of_this_machine_are_served(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_a_form_of_another_page_is_not_taken_for_json(client):
    answer = client.post("/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]


def test_errors_of_the_web_framework_have_the_apis_form(client):
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/chat/completions"), 405)):
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
