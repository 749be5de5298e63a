"""Errors in the API's form: `{"error": {"message", "type", "param", "code"}}` with an HTTP status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Response

from nanochat.errors import NanochatError
from nanochat.printable import printable

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    408: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A request that is refused, or that failed."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(printable(message))
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """Return the error as the API writes it."""
        kind = _TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the error as an answer to a request."""
        return json_response(self.content, self.status, self.headers)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for a request that can never be answered."""
    return ApiError(400, message, param=param, code=code)


def refused(error: NanochatError, param: str | None = None) -> ApiError:
    """Return one of our errors about what a request holds."""
    return bad_request(f"{error}{f'; {error.hint}' if error.hint else ''}", param)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return plain data as an answer; in ASCII, so that no text of a request can break it."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, {**(headers or {}), "content-type": "application/json"})
