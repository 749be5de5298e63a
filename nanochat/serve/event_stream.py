"""Answers that are sent while they are written, as server-sent events, and answers to clients that go away.

By hand, as an event is one line of JSON behind `data: `: a library would add its own ideas of when a client
is gone. While there is nothing to send for long, as in the queue, comments are sent instead: proxies cut off
what they take for dead.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from nanochat.serve.answering import Answers
from nanochat.serve.api_errors import ApiError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
DONE = "[DONE]"
_QUIET_S: Final = 15.0  # well below the minute after which proxies give up


class ClientGone(Exception):
    """The client has closed its connection; nobody reads the answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Return what `work` returns; cancel it and raise ClientGone when the client goes away."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGone
        return doing.result()
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends events about answers, and gives the answers up when the client is gone; an error is the last."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], answers: Answers) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._events = events
        self._answers = answers
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or end early: for a client that is gone, or takes much longer than the engines."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            async with asyncio.timeout(self._answers.longest_s):
                await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            _log.warning(
                "a client was cut off: it had not read its answer after %g s", self._answers.longest_s
            )
        finally:
            self._answers.close()
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            while (data := await _meanwhile_comments(anext(self._events, None), send)) is not None:
                await send(_event(data))
        except ApiError as error:
            await send(_event(json.dumps(error.content)))
        except Exception:
            _log.exception("an answer could not be finished")
            await send(_event(json.dumps(ApiError(500, "the server failed", code="internal").content)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _meanwhile_comments(coming: Awaitable[_T], send: Send) -> _T:
    """Return what is waited for; send comments while it does not come."""
    task = asyncio.ensure_future(coming)
    try:
        while not (await asyncio.wait((task,), timeout=_QUIET_S))[0]:
            await send(_part(": the answer is being waited for"))
        return task.result()
    finally:
        task.cancel()


def _event(data: str) -> dict[str, Any]:
    return _part(f"data: {data}")


def _part(lines: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"{lines}\n\n".encode(), "more_body": True}
