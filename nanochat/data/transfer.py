"""Copies one file from any fsspec URL to this machine: in pieces, with retries, going on where it stopped.

Pieces are fetched by byte range and added to a `.part` file whose name tells source, version and size, so
that a later attempt continues it and never mixes two versions. A server that ignores ranges is taken as it
is. What is in the file is not looked at, apart from a sha256 where the server names one.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import tenacity

from nanochat.errors import DataError, SourceUnavailable

logger = logging.getLogger(__name__)

_PIECE_BYTES = 8 << 20
_ATTEMPTS = 6
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


def fetch(
    url: str,
    target: Path,
    *,
    part_folder: Path,
    size_bytes: int | None = None,
    version: str | None = None,
    check_stop: Callable[[], None] = lambda: None,
    pause_s: float = 1.0,
) -> None:
    """Copy `url` to `target`, which appears only when it is whole.

    A failing call is tried again up to six times in a row, with growing pauses from `pause_s` seconds on.
    Raises DataError if the source does not exist, keeps failing, or has another size or hash than it says.
    """
    filesystem, path = filesystem_of(url)
    retry = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential_jitter(multiplier=pause_s, max=30 * pause_s, jitter=pause_s),
        retry=tenacity.retry_if_exception(_is_passing),
        before_sleep=tenacity.before_sleep_log(logger, logging.WARNING),
        reraise=True,
    )
    try:
        info = retry(filesystem.info, path)
        size = _agreed_size(url, info.get("size"), size_bytes)
        mark = hashlib.sha256(f"{url}\n{version}\n{size}".encode()).hexdigest()[:16]
        part = part_folder / f".{target.name}.{mark}.part"
        part_folder.mkdir(parents=True, exist_ok=True)
        while size is None or not part.exists() or part.stat().st_size < size:
            check_stop()
            retry(_fetch_piece, filesystem, path, part, size)
            if size is None:
                break
    except _unreadable() as error:
        kind = SourceUnavailable if _is_passing(error) else DataError
        raise kind(
            f"{url}: cannot be read: {type(error).__name__}: {error}",
            hint="check the address and the network; what has arrived is kept and the next run goes on there",
        ) from error
    _check_hash(url, part, info)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def filesystem_of(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or local path, never one with a stale listing."""
    try:
        filesystem, path = fsspec.core.url_to_fs(str(url))
    except (ValueError, ImportError) as error:
        raise DataError(
            f"{url}: not a path or URL that can be opened: {error}",
            hint="use a local folder, or a URL such as s3://bucket/folder or https://host/folder",
        ) from error
    filesystem.invalidate_cache()
    return filesystem, path


def _fetch_piece(filesystem: Any, path: str, part: Path, size: int | None) -> None:
    begin = part.stat().st_size if part.exists() and size is not None else 0
    if size is None:
        part.write_bytes(filesystem.cat_file(path))
        return
    end = min(begin + _PIECE_BYTES, size)
    data = filesystem.cat_file(path, start=begin, end=end) if size else b""
    if len(data) == size and len(data) != end - begin:  # the server does not know ranges
        data = data[begin:]
    elif len(data) != end - begin:
        raise OSError(f"got {len(data)} bytes for bytes {begin} to {end} of {size}")
    with part.open("ab") as file:
        file.write(data)


def _agreed_size(url: str, found: int | None, expected: int | None) -> int | None:
    if found is not None and expected is not None and found != expected:
        raise DataError(
            f"{url}: has {found} bytes, not the {expected} that were planned",
            hint="the source has changed; start the run again to plan with what is there now",
        )
    return expected if found is None else int(found)


def _check_hash(url: str, part: Path, info: dict[str, Any]) -> None:
    named = _SHA256.fullmatch(str(info.get("ETag", "")))
    if named is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != named[1]:
        part.unlink()
        raise DataError(
            f"{url}: sha256 is {found[:12]}…, but the server says {named[1][:12]}…",
            hint="the transfer was damaged; run again",
        )


def _unreadable() -> tuple[type[BaseException], ...]:
    import aiohttp  # slow to load, and a plan that reads no web address does not need it

    return (OSError, aiohttp.ClientError, TimeoutError, ValueError)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return False
    return isinstance(error, _unreadable())
