"""Answers that are sent while they are written, as server-sent events, and answers to clients that go away.

By hand, as an event is one line of JSON behind `data: `: a library would add its own ideas of pings and of
when a client is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from nanochat.serve.api_errors import ApiError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
DONE = "[DONE]"


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
    """Sends events; an ApiError among them becomes the last. Ends the work when the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], *, longest_s: float) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._events = events
        self._longest_s = longest_s
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or end early; raises TimeoutError for a reader that takes too long over it."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            async with asyncio.timeout(self._longest_s):
                await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for data in self._events:
                await send(_event(data))
        except ApiError as error:
            await send(_event(json.dumps(error.content)))
        except Exception:
            _log.exception("an answer could not be finished")
            await send(_event(json.dumps(ApiError(500, "the server failed", code="internal").content)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(data: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
