"""Copies one file from any fsspec URL to this machine: in pieces, with retries, continuing where it stopped.

Pieces are fetched by byte range and added to a `.part` file named after source, version, ETag and size,
so that a later attempt continues it and never mixes two versions. A server that ignores ranges is taken as it
is; one that asks for patience (`Retry-After`) gets it; one that falls silent is asked again. The size is
checked, and the sha256 where the server names one, as model hubs do (in the ETag of large files, usually on
the answer that redirects to where the bytes are). The hub's own addresses get the user's token, and a web
client never takes it along to another host. What is in the file is not looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from nanochat.config import SourceFile
from nanochat.config.names import checked_place
from nanochat.data.sources.hub_client import TOKEN_HINT, access_headers, at_mirror
from nanochat.data.sources.patience import STALL_S, patience
from nanochat.errors import DataError, SourceUnavailable, http_status, is_transient
from nanochat.file_digest import sha256_of
from nanochat.system_errors import naming, reason

_PIECE_BYTES = 8 << 20
_VERSIONS = ("ETag", "etag", "checksum", "md5Hash", "LastModified", "mtime", "created")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


@dataclass(frozen=True)
class SourceInfo:
    """What a source says about a file before any of it is fetched."""

    size: int | None = None
    sha256: str | None = None
    etag: str | None = None
    commit: str | None = None  # of the repository the file is in

    def to_json(self) -> dict[str, str]:
        """Return what identifies the content, for the record of whoever fetched it."""
        marks = {"source_sha256": self.sha256, "source_etag": self.etag, "source_commit": self.commit}
        return {name: mark for name, mark in marks.items() if mark}


def fetch(
    url: str,
    target: Path,
    *,
    part_folder: Path,
    size_bytes: int | None = None,
    version: str | None = None,
    hub: str | None = None,
    check_stop: Callable[[], None] = lambda: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    pause_s: float = 1.0,
) -> SourceInfo:
    """Copy `url` to `target`, which appears only when it is whole; return what the source says about it.

    A failing call is tried again up to six times in a row, with growing pauses from `pause_s` seconds on.
    `report` is called at the start and after each piece with the bytes that are there and the total. `hub` is
    the address of the hub that gets the user's token where it is not the one of `HF_ENDPOINT`.
    Raises DataError if the source does not exist, keeps failing, or has a size or hash other than stated.
    """
    url = url if hub else at_mirror(url)
    filesystem, path = filesystem_of(url, hub)
    retry = patience(check_stop, _is_passing, pause_s=pause_s)
    part_folder.mkdir(parents=True, exist_ok=True)
    try:
        info = retry(_source_info, filesystem, path)
        size = _agreed_size(url, info.size, size_bytes)
        mark = hashlib.sha256(f"{url}\n{version}\n{info.etag}\n{size}".encode()).hexdigest()[:16]
        part = part_folder / f".{target.name}.{mark}.part"
        if size is None:
            retry(_fetch_piece, filesystem, path, part, size)
        else:
            part.touch()
            report(part.stat().st_size, size)
            while part.stat().st_size < size:
                check_stop()
                retry(_fetch_piece, filesystem, path, part, size)
                report(part.stat().st_size, size)
    except Exception as error:
        if _is_own(error, part_folder) or not (isinstance(error, _unreadable()) or is_transient(error)):
            raise
        raise _unread(url, error, hub) from error
    _check_hash(url, part, info.sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    return info


def filesystem_of(url: str, hub: str | None = None) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or local path, never one with a stale listing."""
    url, options = str(url) if hub else at_mirror(str(url)), {}
    if url.startswith("http"):
        options = {"client_kwargs": {"timeout": _silence(), "headers": access_headers(url, hub)}}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"{url}: not a path or URL that can be opened: {error}",
            hint="use a local folder, or a URL such as s3://bucket/folder or https://host/folder",
        ) from error
    filesystem.invalidate_cache()
    return filesystem, path


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return what tells two contents of a file apart in the entry that a file system lists for it."""
    if "mtime" in info and "ino" in info:  # a local file
        return f"mtime_ns:{Path(info['name']).stat().st_mtime_ns}"
    return next((f"{key}:{info[key]}".replace('"', "") for key in _VERSIONS if info.get(key)), None)


def source_file(path: str, info: Mapping[str, Any], field: str) -> SourceFile:
    """Return a file of a source as it is listed; raise DataError for a name that leads out of our folder."""
    try:
        return SourceFile(path=checked_place(path), size_bytes=info.get("size"), version=version_of(info))
    except ValueError as error:
        raise DataError(f"{field}: {error}", hint="rename the file at the source") from error


def _source_info(filesystem: Any, path: str) -> SourceInfo:
    """Return what a source says about a file; FileNotFoundError if it has none."""
    headers = []
    if path.startswith("http"):
        headers = fsspec.asyn.sync(filesystem.loop, _head, filesystem, path)
    info = _from_headers(headers) if headers else SourceInfo()
    if info.size is None:
        told = filesystem.info(path)
        info = _from_headers([{k: str(v) for k, v in told.items()}])
        info = SourceInfo(told.get("size"), info.sha256, info.etag)
    return info


async def _head(filesystem: Any, url: str) -> list[Mapping[str, str]]:
    """Ask for the headers only; return those of each redirect and of the last answer, or nothing."""
    session = await filesystem.set_session()
    kwargs = {"allow_redirects": True, "headers": {"Accept-Encoding": "identity"}}
    async with session.head(filesystem.encode_url(url), **kwargs) as answer:
        if answer.status == 404:
            raise FileNotFoundError(url)
        if answer.status in (400, 403, 405, 501):  # some servers only answer GET
            return []
        answer.raise_for_status()
        return [*(each.headers for each in answer.history), answer.headers]


def _from_headers(answers: Sequence[Mapping[str, str]]) -> SourceInfo:
    def first(*names: str) -> str | None:
        found = (answer[name] for name in names for answer in answers if name in answer)
        return next(found, None)

    etag = first("X-Linked-Etag") or answers[-1].get("ETag")
    named = _SHA256.fullmatch(etag or "")
    size = first("X-Linked-Size") or answers[-1].get("Content-Length")
    return SourceInfo(
        size=int(size) if size else None,
        sha256=named[1] if named else None,
        etag=etag.strip('"') if etag else None,
        commit=first("X-Repo-Commit"),
    )


def _fetch_piece(filesystem: Any, path: str, part: Path, size: int | None) -> None:
    if size is None:
        data = filesystem.cat_file(path)
        with naming(part):
            part.write_bytes(data)
        return
    begin = part.stat().st_size
    end = min(begin + _PIECE_BYTES, size)
    data = filesystem.cat_file(path, start=begin, end=end)
    if len(data) == size and len(data) != end - begin:  # the server does not know ranges
        data = data[begin:]
    elif len(data) != end - begin:
        raise OSError(f"got {len(data)} bytes for bytes {begin} to {end} of {size}")
    with naming(part), part.open("ab") as file:
        file.write(data)


def _agreed_size(url: str, found: int | None, expected: int | None) -> int | None:
    if found is not None and expected is not None and found != expected:
        raise DataError(
            f"{url}: has {found} bytes, not the {expected} that were planned",
            hint="the source has changed; start the run again to plan with what is there now",
        )
    return expected if found is None else int(found)


def _check_hash(url: str, part: Path, named: str | None) -> None:
    if named is None:
        return
    found = sha256_of(part)
    if found != named:
        part.unlink()
        raise DataError(
            f"{url}: sha256 is {found[:12]}…, but the server reports {named[:12]}…",
            hint="the transfer was damaged; run again",
        )


def _silence() -> Any:
    """Return time limits of a web client: none on the whole, `STALL_S` on each wait for bytes."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S)


def _unreadable() -> tuple[type[BaseException], ...]:
    import aiohttp  # slow to load, and a plan that reads no web address does not need it

    return (OSError, aiohttp.ClientError, TimeoutError, ValueError)


def _unread(url: str, error: BaseException, hub: str | None) -> DataError:
    """Return the error for a file that does not arrive, with what its user can do about it."""
    hint = "check the address and the network; what has arrived is kept, and the next run continues there"
    if http_status(_cause(error)) in (401, 403) and url.startswith("http") and access_headers(url, hub):
        hint = TOKEN_HINT
    kind = SourceUnavailable if _is_passing(error) else DataError
    return kind(f"{url}: cannot be read: {reason(error)}", hint=hint)


def _is_own(error: BaseException, part_folder: Path) -> bool:
    """Return whether it is this machine that cannot keep the file."""
    name = error.filename if isinstance(error, OSError) else None
    return isinstance(name, str) and Path(name).parent == part_folder


def _is_passing(error: BaseException) -> bool:
    return is_transient(_cause(error))


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong: fsspec reports every failed look-up of a web address as a missing file."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, _unreadable()) else error
