"""The application: all routes over one service, and errors in the API's form wherever they arise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from nanochat.serve.api_errors import ApiError, bad_request
from nanochat.serve.chat_route import chat_router
from nanochat.serve.completion_route import completion_router
from nanochat.serve.event_stream import ClientGone
from nanochat.serve.guards import Guard
from nanochat.serve.service import Service
from nanochat.serve.status_routes import status_router
from nanochat.serve.upstream_route import upstream_router
from nanochat.serve.web_page import PageFile, page_router

_log = logging.getLogger(__name__)


def create_app(service: Service, page: dict[str, PageFile]) -> FastAPI:
    """Return the application of a service."""
    app = FastAPI(title="nanochat", docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    for make in (chat_router, completion_router, upstream_router, status_router):
        app.include_router(make(service))
    app.include_router(page_router(page))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _wrong_form)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Counted, service=service)
    app.add_middleware(Guard, settings=service.settings)
    if service.settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app


class Counted:
    """Counts requests that are being answered, so that a server that ends can wait for them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; nobody is left to answer where the client is gone."""
        with self._service.request_open():
            try:
                await self._app(scope, receive, send)
            except ClientGone:
                _log.debug("a client went away")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _wrong_form(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", found[0]["msg"])
        return bad_request(f"the body is not JSON: {reason}").response()
    # Of a value that may be of several types, the type that it comes closest to says most.
    places = {_place(one["loc"][1:]): one for one in reversed(found)}
    first = _place(found[0]["loc"][1:])
    where = max((place for place in places if place.startswith(first)), key=len)
    known = places[where]["type"] != "extra_forbidden"
    problem = places[where]["msg"] if known else "this server does not know the field"
    return bad_request(f"{where or 'the body'}: {problem}", where or None).response()


def _place(path: Sequence[Any]) -> str:
    """Return where in a body something is, such as messages[0].content; without the names of types."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step not in ("str", "int", "float", "bool") and "[" not in step:
            text += f".{str(step)[:80]}" if text else str(step)[:80]
    return text


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail), headers=error.headers).response()


async def _bug(request: Request, error: Exception) -> Response:
    return ApiError(500, "the server failed; its log says why", code="internal").response()
