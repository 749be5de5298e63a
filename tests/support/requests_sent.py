"""Requests to S3, counted where they leave this process: whoever asked, pages and retries included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from aiobotocore.httpsession import AIOHTTPSession


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    """Collect the method of each request while the block runs."""
    sent: list[str] = []
    send = AIOHTTPSession.send

    async def one_more(self: AIOHTTPSession, request: Any) -> Any:
        sent.append(request.method)
        return await send(self, request)

    with mock.patch.object(AIOHTTPSession, "send", one_more):
        yield sent
