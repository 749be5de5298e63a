"""The page's files, read once, with headers that let the page use nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from nanochat.errors import ConfigError
from nanochat.serve.api_errors import ApiError

PAGE_FOLDER: Final = Path(__file__).with_name("page")
START: Final = "index.html"
_READ: Final = ["GET", "HEAD"]
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for again each time, so that an upgrade shows
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


def read_page(folder: Path = PAGE_FOLDER) -> dict[str, PageFile]:
    """Return the page's files by name; raise ConfigError where they are missing."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    files = {path.name: _read(path) for path in found if path.suffix in _TYPES}
    if START not in files:
        raise ConfigError(f"{folder / START} is missing", hint="install nanochat again")
    return files


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def page_router(files: dict[str, PageFile]) -> APIRouter:
    """Return the routes of the page and its files."""
    router = APIRouter()

    @router.api_route("/", methods=_READ, include_in_schema=False)
    async def page(request: Request) -> Response:
        return _answer(files[START], request)

    @router.api_route("/page/{name}", methods=_READ, include_in_schema=False)
    async def page_file(name: str, request: Request) -> Response:
        if name not in files:
            raise ApiError(404, "the page has no such file", code="not_found")
        return _answer(files[name], request)

    return router


def _answer(file: PageFile, request: Request) -> Response:
    headers = {**_HEADERS, "etag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "content-type": file.media_type})
