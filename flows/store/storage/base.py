"""Bytes under names, on any fsspec filesystem: the few operations on which the store is built.

`create` is the one that matters: it writes a small object only if there is none, atomically, and everything
that needs agreement between machines (records, leases) rests on it alone. `Storage` works over any fsspec
filesystem that offers it; a local folder and S3 do better with calls of their own. Every operation is tried
again where that may help (`flows.store.storage.retry`). This module knows nothing about artifacts, records or
leases.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from flows.store.storage.retry import Retry, ShortRead, service_code
from nanochat.errors import Damaged, StoreError
from nanochat.file_digest import sha256_of
from nanochat.system_errors import naming

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 1 << 20
SMALL = 16 << 20  # more than any record, lease or root has; a record of 2,000 inputs has 600 KB
_memory_lock = threading.Lock()  # the memory filesystem is one dict for the whole process


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object."""

    size: int
    mtime: float  # seconds since the epoch; 0 if the filesystem does not report it
    etag: str | None = None  # another one after each change, where the service has them


class Storage:
    """Objects below one root of an fsspec filesystem; names are relative, with `/`."""

    shared = True  # several machines may use it, so conditional writes must be proven
    workers = 16  # calls worth having in flight at once

    def __init__(self, url: str, fs: Any, root: str, retry: Retry) -> None:
        self.url = url
        self.fs = fs
        self.root = root.rstrip("/")
        self.retry = retry
        self._folders: set[str] = set()  # made or seen

    def probe(self) -> None:
        """Prove that `create` creates once; raise `StoreError` if it does not."""
        name = f"probe/{uuid.uuid4().hex}"
        first, second = self.create(name, b"first"), self.create(name, b"second")
        kept = self.read(name)
        self.delete(name)
        if (first, second, kept) != (True, False, b"first"):
            raise StoreError(
                f"{self.url}: the service ignores conditional writes (If-None-Match)",
                hint="two runs could overwrite each other there; use a service that honours them",
            )

    def read(self, name: str) -> bytes:
        """Return the bytes of a small object, or raise FileNotFoundError."""
        return self._try("read", name, lambda: self._read(name))

    def read_as(self, name: str, parse: Callable[[bytes], T]) -> T:
        """Return `parse` of a small object's bytes, read again if it raises ValueError and that may help.

        Raises `Damaged` if it stays so, or if there is something other than a small file.
        """

        def attempt() -> T:
            data = self._read(name)
            if len(data) > SMALL:
                raise Damaged(f"{name}: more than {SMALL >> 20} MiB, which nothing writes there")
            try:
                return parse(data)
            except ValueError as error:
                message = f"{name}: {len(data)} bytes that do not fit: {error}"
                raise (ShortRead if self.shared else Damaged)(message) from error

        return self._try("read", name, attempt)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object only if there is none; return whether this call wrote it."""
        if self._try("create", name, lambda: self._create(name, data)):
            return True
        with suppress(FileNotFoundError):  # a retry after a lost answer finds the bytes of our own write
            return self.read(name) == data
        return False

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a small object; it appears whole or not at all."""
        self._through_part(name, len(data), lambda part: self.fs.pipe_file(part, data))

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file to `name`; it appears whole or not at all."""
        self._through_part(name, source.stat().st_size, lambda part: self.fs.put_file(str(source), part))

    def refresh(self, source: Path, name: str) -> None:
        """Make an object as new as if it had just been uploaded, so that no collector treats it as old."""
        self.upload(source, name)

    def download(self, name: str, target: Path, size: int, sha256: str) -> None:
        """Copy an object to a local file, proven by size and hash; nothing appears otherwise."""
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        target.parent.mkdir(parents=True, exist_ok=True)

        def attempt() -> None:
            with naming(part):
                self.fs.get_file(self._path(name), str(part))
            if part.stat().st_size != size:
                raise ShortRead(f"{part.stat().st_size} of {size} bytes arrived")
            if (got := sha256_of(part)) != sha256:
                raise ShortRead(f"its bytes hash to {got[:12]}, not to {sha256[:12]}")
            part.chmod(0o444)
            part.replace(target)

        try:
            self._try("download", name, attempt)
        finally:
            part.unlink(missing_ok=True)

    def hash(self, name: str) -> tuple[int, str]:
        """Return size and sha256 of an object, read whole."""
        return self._try("hash", name, lambda: self._hash(name))

    def found(self, name: str) -> ObjectInfo | None:
        """Return size and age of an object, or None if there is none."""
        return self._try("look up", name, lambda: self._found(name))

    def listing(self, prefix: str) -> dict[str, ObjectInfo]:
        """Return all objects below `prefix/`, by name."""
        return self._try("list", prefix, lambda: self._listing(prefix))

    def delete(self, *names: str) -> None:
        """Remove objects; those already gone are not an error."""
        self.each(lambda name: self._try("delete", name, lambda: self._delete(name)), names)

    def set_aside(self, name: str) -> str:
        """Move a damaged object out of the way, for people to look at; return its new name."""
        aside = f"damaged/{name.rpartition('/')[2]}.{uuid.uuid4().hex[:8]}"
        with suppress(FileNotFoundError):  # somebody else has done it
            self._try("set aside", name, lambda: self._move(name, aside))
        return aside

    def sweep(self) -> None:
        """Remove what killed processes have left half-written, where that can be recognized."""

    def local_path(self, name: str) -> Path | None:
        """Return where the object is on this machine, or None if the storage is elsewhere."""
        return None

    def each(self, function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None) -> list[R]:
        """Return `function` of each item, several calls in parallel."""
        items = list(items)
        workers = min(workers or self.workers, len(items))
        if workers < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(function, items))

    def _try(self, verb: str, name: str, operation: Callable[[], T]) -> T:
        return self.retry.call(f"{verb} {self.url.rstrip('/')}/{name}", operation)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self._path(name)))

    def _create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        self._make_folder(path)
        with suppress(FileExistsError), _memory_lock:
            self.fs.pipe_file(path, data, mode="create")
            return True
        return False

    def _through_part(self, name: str, size: int, put: Callable[[str], None]) -> None:
        """Write beside the final place, check the size, then rename; each step is tried again by itself."""
        part, path = f"{self.root}/parts/{uuid.uuid4().hex}", self._path(name)

        def write() -> None:
            put(part)
            if (arrived := self.fs.info(part)["size"]) != size:
                raise ShortRead(f"{arrived} of {size} bytes arrived")

        def rename() -> None:
            try:
                self.fs.mv(part, path)
            except FileNotFoundError:  # done before, and only the answer was lost?
                there = self._found(name)
                if there is None or there.size != size:
                    raise

        try:
            self._try("write", name, lambda: self._make_folder(part))
            self._try("write", name, write)
            self._try("write", name, lambda: self._make_folder(path))
            self._try("write", name, rename)
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(part)
            raise

    def _make_folder(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self.fs.makedirs(folder, exist_ok=True)
            self._folders.add(folder)

    def _hash(self, name: str) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with self.fs.open(self._path(name), "rb", cache_type="none") as file:
            while chunk := file.read(8 * CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return size, digest.hexdigest()

    def _found(self, name: str) -> ObjectInfo | None:
        try:
            return _object_info(self.fs.info(self._path(name)))
        except FileNotFoundError:
            return None

    def _listing(self, prefix: str) -> dict[str, ObjectInfo]:
        self.fs.invalidate_cache()
        try:
            listed: Mapping[str, Mapping[str, Any]] = self.fs.find(self._path(prefix), detail=True)
        except FileNotFoundError as error:
            if service_code(error) == "NoSuchBucket":  # an outage, not an empty folder
                raise
            return {}
        start = len(self.root.lstrip("/")) + 1
        names = {path.lstrip("/")[start:]: info for path, info in listed.items()}
        return {
            name: _object_info(info)
            for name, info in names.items()
            if name.startswith(f"{prefix}/") and info["type"] == "file"  # some list the folder itself
        }

    def _move(self, name: str, target: str) -> None:
        self._make_folder(self._path(target))
        self.fs.mv(self._path(name), self._path(target))

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(self._path(name))


def _object_info(info: Mapping[str, Any]) -> ObjectInfo:
    when = info.get("mtime") or info.get("LastModified") or info.get("created") or info.get("last_modified")
    seconds = when.timestamp() if isinstance(when, datetime) else float(when or 0)
    etag = info.get("ETag") or info.get("etag")
    return ObjectInfo(int(info["size"]), seconds, str(etag) if etag else None)
