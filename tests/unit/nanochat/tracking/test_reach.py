"""Any answer of a server will do; silence and a closed port will not."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from nanochat.tracking import reach


class _Says500(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/mlflow/health"
        self.send_error(500)

    def log_message(self, *_):
        pass


def test_a_server_in_trouble_answers_and_silence_is_an_error(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Says500) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reach.require_answer(f"http://me:secret@127.0.0.1:{server.server_port}/mlflow/")
        server.shutdown()
    monkeypatch.setattr(reach, "_TIMEOUT_S", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        for listens in (False, True):
            if listens:
                silent.listen()
            with pytest.raises(OSError, match=r"refused|timed out"):
                reach.require_answer(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("uri", ["sqlite:////nowhere/mlflow.db", "databricks", "file:///nowhere"])
def test_what_is_not_a_web_server_is_not_asked(uri):
    reach.require_answer(uri)


def test_a_server_behind_a_proxy_is_left_to_mlflow(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    reach.require_answer("http://mlflow.invalid:5000")
