"""A server under strain: full, slow, failing, left alone by its clients, asked to end."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from nanochat.chat.engine import Engine
from nanochat.errors import ConfigError, DataError
from nanochat.serve import event_stream, http_server
from nanochat.serve.http_server import open_socket
from nanochat.serve.serve_settings import ServeSettings
from tests.support.serving import ENDLESS, SUM_TEXT, server_here, tiny_engine

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Hello"}]}
LONG = {**ASKED, "max_tokens": 4096}
STREAM = {**LONG, "stream": True}


def endless():
    return tiny_engine(ENDLESS, context=8192)


@contextmanager
def serving(*makes, load=None, send_buffer=None, **settings):
    with (
        server_here(ServeSettings(**settings), *makes, load=load, send_buffer=send_buffer) as (url, server),
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client, server


def metric(server, name, **labels):
    return server.service.metrics.registry.get_sample_value(f"nanochat_{name}", labels)


def wait_for(server, name, value, **labels):
    for _ in range(3000):
        if metric(server, name, **labels) == value:
            return
        time.sleep(0.01)
    raise AssertionError(f"{name} is {metric(server, name, **labels)}")


@contextmanager
def streaming(client, body, path=CHAT):
    """Yield the lines of an answer that has begun; the connection is closed with the block."""
    with client.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        yield itertools.chain([next(lines)], lines)


def streamed(client, body):
    with streaming(client, body) as lines:
        return list(lines)


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


def last_of(lines):
    """Return the last event of a stream."""
    *_, last = (line for line in lines if line)
    return json.loads(last.removeprefix("data: "))


def test_what_finds_no_place_is_refused_until_there_is_one():
    with serving(endless, rows=1, queue=0) as (client, server):
        with streaming(client, STREAM):
            refused = client.post(CHAT, json=ASKED)
            assert error_of(refused) == (429, "queue_full") and int(refused.headers["retry-after"]) >= 1
        wait_for(server, "running_answers", 0)
        assert client.post(CHAT, json={**ASKED, "max_tokens": 1}).status_code == 200
        assert metric(server, "requests_total", outcome="refused") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(stream):
    with serving(endless, rows=1, queue=0) as (client, server):
        body = json.dumps(STREAM if stream else LONG).encode()
        with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(server, "running_answers", 1)
        wait_for(server, "running_answers", 0)
        assert metric(server, "requests_total", outcome="cancelled") == 1
        assert metric(server, "generated_tokens_total") < 4096


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue():
    with serving(endless, rows=1, queue=1) as (client, server), streaming(client, STREAM):
        with streaming(client, STREAM):
            wait_for(server, "waiting_answers", 1)
        wait_for(server, "waiting_answers", 0)
        assert metric(server, "running_answers") == 1


def test_when_its_time_is_over_an_answer_ends_as_it_is():
    with serving(endless, timeout_s=0.3) as (client, server):
        (choice,) = client.post(CHAT, json=LONG).json()["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "timeout")
        assert choice["message"]["content"].startswith(" abc")
        assert last_of(streamed(client, STREAM)[:-2])["choices"][0]["stop_reason"] == "timeout"
        wait_for(server, "requests_total", 2, outcome="timeout")
        wait_for(server, "running_answers", 0)


@pytest.mark.parametrize("stream", [True, False])
def test_what_may_have_begun_a_stop_string_is_there_when_the_time_is_over(stream):
    go = threading.Event()
    with serving(lambda: HeldEngine(go, 3), timeout_s=0.5) as (client, _):
        body = {**ASKED, "stop": "see: nothing", "stream": stream}
        if stream:
            found = [json.loads(line.removeprefix("data: ")) for line in streamed(client, body)[:-2] if line]
            text = "".join(event["choices"][0]["delta"].get("content", "") for event in found)
            last = found[-1]["choices"][0]
        else:
            (last,) = client.post(CHAT, json=body).json()["choices"]
            text = last["message"]["content"]
        go.set()
    assert (text, last["stop_reason"]) == ("Let me see:", "timeout")


def test_an_answer_that_does_not_begin_in_time_fails_with_a_way_to_try_again():
    go = threading.Event()
    with serving(lambda: HeldEngine(go), timeout_s=0.1) as (client, server):
        found = client.post(CHAT, json=ASKED)
        assert error_of(found) == (503, "timeout") and "retry-after" in found.headers
        assert last_of(streamed(client, STREAM))["error"]["code"] == "timeout"
        go.set()
        wait_for(server, "running_answers", 0)


class HeldEngine(Engine):
    """An engine that does a number of steps, and the next ones when it may."""

    def __init__(self, go, steps=0):
        made = tiny_engine()
        super().__init__(made.model, made.tokenizer)
        self._go, self._steps = go, steps

    def step(self):
        if self._steps == 0:
            self._go.wait(60)
        self._steps = max(self._steps - 1, 0)
        return super().step()


class FailingEngine(Engine):
    """An engine whose steps fail when the next of `failures` says so."""

    def __init__(self, failures):
        made = tiny_engine()
        super().__init__(made.model, made.tokenizer)
        self._failures = failures

    def step(self):
        if next(self._failures):
            raise RuntimeError("out of memory")
        return super().step()


@pytest.fixture
def quiet_engines():
    """Steps are made to fail, and what is logged of it is not for the console."""
    logger = logging.getLogger("nanochat.serve.engine_thread")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.usefixtures("quiet_engines")
def test_a_step_that_fails_ends_its_answers_and_no_others():
    failures = itertools.chain([False, False, True], itertools.repeat(False))
    with serving(lambda: FailingEngine(failures)) as (client, server):
        with streaming(client, STREAM) as lines:
            error = last_of(lines)["error"]
        assert (error["type"], error["code"]) == ("server_error", "engine_failed")
        assert client.get("/health").status_code == 200
        whole = client.post(CHAT, json=ASKED).json()
        assert whole["choices"][0]["message"]["content"] == SUM_TEXT
        assert metric(server, "requests_total", outcome="failed") == 1


@pytest.mark.usefixtures("quiet_engines")
def test_an_engine_whose_every_step_fails_is_given_up_and_the_server_says_so():
    with serving(lambda: FailingEngine(itertools.repeat(True)), rows=1) as (client, _):
        found = [client.post(CHAT, json=ASKED) for _ in range(3)]
        assert [error_of(one) for one in found] == [(500, "engine_failed")] * 3
        assert error_of(client.post(CHAT, json=ASKED)) == (503, "no_engine")
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")


@pytest.mark.usefixtures("quiet_engines")
def test_another_engine_goes_on_when_one_is_given_up():
    with serving(tiny_engine, lambda: FailingEngine(itertools.repeat(True)), rows=1) as (client, server):

        def ask(_):
            return client.post(CHAT, json=ASKED).status_code

        with ThreadPoolExecutor(2) as pool:
            while metric(server, "engines") == 2:
                assert set(pool.map(ask, range(4))) <= {200, 500}
        assert {ask(0) for _ in range(3)} == {200}
        assert client.get("/health").status_code == 200


def test_engines_share_the_queue():
    with serving(endless, endless, rows=1) as (client, server):
        path = "/chat/completions"
        with streaming(client, LONG, path) as one, streaming(client, LONG, path) as other:
            numbers = [json.loads(next(lines).removeprefix("data: "))["gpu"] for lines in (one, other)]
            assert sorted(numbers) == [0, 1]
            assert metric(server, "running_answers") == 2
            assert client.get("/stats").json()["busy_workers"] == 2


def test_a_slow_reader_is_cut_off_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(http_server, "_STALLED_S", 0.3)
    with serving(endless, rows=2, send_buffer=8192) as (client, server):
        body = json.dumps(STREAM).encode()
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect((client.base_url.host, client.base_url.port))
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(server, "running_answers", 1)
            assert client.post(CHAT, json={**ASKED, "max_tokens": 30}).status_code == 200
            wait_for(server, "requests_total", 1, outcome="cancelled")
        wait_for(server, "running_answers", 0)


@pytest.mark.parametrize("path", [CHAT, "/chat/completions"])
def test_a_stream_that_waits_says_so_for_proxies_and_leaves_its_events_as_they_are(monkeypatch, path):
    monkeypatch.setattr(event_stream, "_QUIET_S", 0.02)
    go = threading.Event()
    with serving(lambda: HeldEngine(go)) as (client, _):
        body = {**ASKED, "stream": True} if path == CHAT else ASKED
        with client.stream("POST", path, json=body) as answer:
            lines = (line for line in answer.iter_lines() if line)
            waited = [line for line in itertools.islice(lines, 4) if line.startswith(":")]
            go.set()
            written = [line for line in lines if not line.startswith(":")]
    assert len(waited) >= 3  # the first event of a conversation comes before anything is written
    assert sum(SUM_TEXT[-1] in line for line in written) >= 1 and all(
        line[:6] == "data: " for line in written
    )


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nhost: local"])
def test_a_client_that_does_not_say_what_it_wants_is_cut_off(monkeypatch, said):
    monkeypatch.setattr(http_server, "_STALLED_S", 0.1)
    with serving(tiny_engine) as (client, _):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as raw:
            raw.sendall(said)
            assert raw.recv(1) == b""
        assert client.get("/").status_code == 200


def test_a_server_that_ends_finishes_what_runs_and_takes_nothing_new():
    go = threading.Event()
    with serving(lambda: HeldEngine(go, 3)) as (client, server), streaming(client, STREAM) as lines:
        server.stop_soon()
        while client.get("/health").json()["status"] != "stopping":
            time.sleep(0.01)
        assert error_of(client.post(CHAT, json=ASKED)) == (503, "stopping")
        go.set()
        found = [line for line in lines if line]
    assert found[-1] == "data: [DONE]"
    assert json.loads(found[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"


def test_after_the_grace_time_an_answer_ends_with_an_error():
    with serving(endless, grace_s=0.1) as (client, server), streaming(client, STREAM) as lines:
        server.stop_soon()
        assert last_of(lines)["error"]["code"] == "stopping"


def test_the_socket_answers_while_the_model_is_loaded():
    go, engines = threading.Event(), [("cpu", tiny_engine)]

    def load():
        go.wait(60)
        return "tiny", engines

    with serving(load=load) as (client, _):
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        for path in ("/v1/models", "/stats"):
            assert error_of(client.get(path)) == (503, "loading")
        assert error_of(client.post(CHAT, json=ASKED)) == (503, "loading")
        assert client.get("/").status_code == 200
        go.set()
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"


def test_a_server_that_was_asked_to_end_does_not_say_any_more_that_it_is_ready():
    loaded, asked, said = threading.Event(), threading.Event(), []

    def load():
        threads.append(threading.current_thread())
        asked.set()
        loaded.wait(60)
        return "tiny", [("cpu", tiny_engine)]

    threads = []
    with server_here(ServeSettings(), load=load, said=said) as (_, server):
        asked.wait(60)
        server.stop_soon()
        while not said:
            time.sleep(0.01)
        loaded.set()
        threads[0].join()
    (only,) = said
    assert only.startswith("stopping") and server.service.state == "stopping"


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error():
    def load():
        raise DataError("the weights are gone")

    with pytest.raises(DataError, match="the weights are gone"), serving(load=load):
        pass


def test_a_port_in_use_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .*in use") as error:
            open_socket("127.0.0.1", port)
    assert "--port" in error.value.hint
    with pytest.raises(ConfigError, match=r"nowhere\.invalid"):
        open_socket("nowhere.invalid", 80)
