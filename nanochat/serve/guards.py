"""Who may ask, and how much may be sent: key, origin, host and size are checked before anything is parsed.

Without a key the server trusts this machine alone. A browser on it runs pages from anywhere, though: a
request that a page of another origin makes is refused, and so is one for another host's name, by which a page
whose name was made to point here (DNS rebinding) gives itself away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.serve.api_errors import ApiError
from nanochat.serve.event_stream import ClientGone
from nanochat.serve.serve_settings import KEY_VARIABLE, ServeSettings, is_loopback

_WITHOUT_KEY = ("/health", "/")
_PAGE = "/page/"
_LATE = 408
_DISCARDED_BYTES = 64 * 2**20
_DISCARDING_S = 5.0


class Guard:
    """Stands before all routes."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        coming = _Body(receive)
        headers = Headers(scope=scope)
        try:
            self._check(scope)
            body = await self._body(headers, coming)
        except ApiError as error:
            if "expect" not in headers and error.status != _LATE:
                await coming.discard()
            if not coming.whole:  # else what comes next is taken for the body, or waited for
                error.headers["connection"] = "close"
            await error.response()(scope, receive, send)
            return
        except ClientGone:
            return
        await self._app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        settings = self._settings
        path = scope["path"]
        if settings.key is None:
            _check_host(headers.get("host", ""))
        elif not (path in _WITHOUT_KEY or path.startswith(_PAGE)):
            _check_key(headers.get("authorization", ""), settings.key)
        _check_origin(headers, settings.allow_origins)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            raise ApiError(
                415, f"the content-type is {kind[:80]!r}; send the header content-type: application/json"
            )

    async def _body(self, headers: Headers, coming: _Body) -> bytes:
        """Return the body of a request, which must be short and come soon."""
        limits = self._settings.limits
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                while (part := await coming.part()) is not None:
                    body += part
                    if len(body) > limits.body_bytes:
                        raise _too_large(limits.body_bytes)
        except TimeoutError:
            raise ApiError(
                _LATE,
                f"the request had not come in after {limits.body_s:g} s",
                headers={"connection": "close"},
            ) from None
        return bytes(body)


class _Body:
    """A request's body as it comes in."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.whole = False
        """Nothing more of it has to come."""

    async def part(self) -> bytes | None:
        """Return what comes next, None at the end; raise ClientGone where the client is."""
        if self.whole:
            return None
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        self.whole = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def discard(self) -> None:
        """Let the rest come in, for a while: who is cut off while sending does not read the answer."""
        left = _DISCARDED_BYTES
        with contextlib.suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(_DISCARDING_S):
                while left > 0 and (part := await self.part()) is not None:
                    left -= len(part)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body, and then what the client does next."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request is larger than {limit:,} bytes", headers={"connection": "close"})


def _check_key(header: str, key: str) -> None:
    scheme, _, given = header.partition(" ")
    # Digests have one length, so that comparing them takes one time.
    same = hmac.compare_digest(*(hashlib.sha256(t.encode()).digest() for t in (given.strip(), key)))
    if scheme.lower() != "bearer" or not same:
        raise ApiError(
            401,
            "the key is wrong"
            if header
            else f"a key is needed: send the header Authorization: Bearer KEY,"
            f" with the value of {KEY_VARIABLE} on the server",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _check_host(host: str) -> None:
    name = urlsplit(f"//{host}").hostname if _is_plain(host) else None
    if name is None or not is_loopback(name):
        raise ApiError(
            403,
            f"the request is for the host {host[:80]!r}; without a key only loopback names are served",
            code="host_not_allowed",
        )


def _check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if not _is_plain(origin) or urlsplit(origin).netloc != headers.get("host"):
        raise ApiError(
            403,
            f"pages of {origin[:80]!r} may not use this server; --allow-origin lets them",
            code="origin_not_allowed",
        )


def _is_plain(address: str) -> bool:
    try:
        urlsplit(address if "//" in address else f"//{address}")
    except ValueError:
        return False
    return address.isascii()
