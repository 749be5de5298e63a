"""A server of the chat page whose answers are written down beforehand: slow, broken, hostile or refused.

It serves the page's own files with the headers of `nanochat serve`, and keeps what it is asked.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from nanochat.serve.web_page import page_router, read_page

CONTEXT_TOKENS = 256
KEY = "a key of the tests"


class Hold:
    """A place in an answer where it waits until it is let go, or its reader is gone."""

    def __init__(self) -> None:
        self.reached, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()


class BreakOff:
    """A place in an answer where the connection ends."""


Event = str | Mapping[str, Any] | Hold | BreakOff


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    status: int
    message: str
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class ScriptedServer:
    """Answers `/v1/chat/completions` with what `will` was given, first come first served; else with `ok`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        """The body of each chat request."""
        self.port = 0
        self.needs_key = False
        self._answers: deque[tuple[Event, ...] | Refusal] = deque()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        """Return the address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def will(self, *events: Event) -> None:
        """Answer the next request with text, calculator uses (mappings), waits and breaks."""
        self._answers.append(events)

    def will_refuse(self, refusal: Refusal) -> None:
        """Answer the next request with an error."""
        self._answers.append(refusal)

    def next_answer(self) -> tuple[Event, ...] | Refusal:
        """Return what the next request is answered with."""
        return self._answers.popleft() if self._answers else ("ok",)

    def start(self) -> None:
        """Listen, at the same address as before."""
        server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), type("_Handler", (_Handler,), {"script": self})
        )
        server.daemon_threads = True
        self.port, self._server = server.server_port, server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _page() -> TestClient:
    app = FastAPI()
    app.include_router(page_router(read_page()))
    return TestClient(app)


class _Handler(BaseHTTPRequestHandler):
    script: ScriptedServer
    page = _page()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok"})
        elif self.path == "/v1/models":
            if self._allowed():
                self._json(200, {"data": [{"id": "small-model", "max_model_len": CONTEXT_TOKENS}]})
        else:
            found = self.page.get(self.path)
            self.send_response(found.status_code)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.content)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._allowed():
            return
        self.script.asked.append(body)
        answer = self.script.next_answer()
        if isinstance(answer, Refusal):
            error = {"message": answer.message, "type": "error", "param": None, "code": answer.code}
            self._json(answer.status, {"error": error}, answer.headers)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader has left
            self._stream(answer)
        self.close_connection = True

    def _stream(self, answer: tuple[Event, ...]) -> None:
        for event in answer:
            if isinstance(event, BreakOff):
                return
            if isinstance(event, Hold):
                self._wait(event)
            else:
                self._send({"delta": {"content": event} if isinstance(event, str) else {"calculator": event}})
        self._send({"delta": {}, "finish_reason": "stop"})
        usage = {"prompt_tokens": 20, "completion_tokens": len(answer), "total_tokens": 20 + len(answer)}
        self._data(json.dumps({"choices": [], "usage": usage}))
        self._data("[DONE]")

    def _wait(self, hold: Hold) -> None:
        hold.reached.set()
        while not hold.go_on.wait(0.02):
            try:
                self.wfile.write(b": waiting\n\n")
                self.wfile.flush()
            except OSError:
                hold.left.set()
                raise

    def _send(self, choice: Mapping[str, Any]) -> None:
        self._data(json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}))

    def _data(self, text: str) -> None:
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def _allowed(self) -> bool:
        if not self.script.needs_key or self.headers["authorization"] == f"Bearer {KEY}":
            return True
        self._json(
            401, {"error": {"message": "a key is needed", "type": "error", "param": None, "code": None}}
        )
        return False

    def _json(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "content-type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
