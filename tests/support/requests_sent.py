"""Requests to S3, counted where they leave this process: whoever asked, pages and retries included."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    """Collect the method of each request while the block runs."""
    session = pkgutil.resolve_name("aiobotocore.httpsession:AIOHTTPSession")  # what s3fs sends with
    sent: list[str] = []
    send = session.send

    async def one_more(self: Any, request: Any) -> Any:
        sent.append(request.method)
        return await send(self, request)

    with mock.patch.object(session, "send", one_more):
        yield sent
