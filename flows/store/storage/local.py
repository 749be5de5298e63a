"""A folder on this machine, or one that it has mounted.

A file is written below `parts/`, synced to disk, and then renamed to its place or, where it must be the
first, hard-linked to it: the link fails if there is one already, which is all the agreement that runs need.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import random
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from flows.store.storage.base import CHUNK, SMALL, ObjectInfo, Storage
from flows.store.storage.retry import ShortRead
from nanochat.errors import Damaged, StoreError, StoreUnavailable
from nanochat.system_errors import naming

_PART = re.compile(r"[0-9a-f]{32}")
_ATTEMPTS = 100  # at a folder that others make and remove
_OUT_OF_STEP_S = 0.002  # at most, before another attempt: threads that share a lock can keep step for long


class LocalStorage(Storage):
    """A folder on this machine, or one that it has mounted; hard links give the atomic `create`."""

    shared = False
    workers = 1

    def check(self) -> None:
        """Raise if there is something other than a folder; nothing there yet is fine."""
        self._try("open", "", self._check)

    def _check(self) -> None:
        root = Path(self.root)
        if root.is_symlink() and not root.exists():
            raise StoreUnavailable(
                f"{self.url} leads to {root.readlink()}, which does not exist", hint="is its disk mounted?"
            )
        if root.exists() and not root.is_dir():
            raise StoreError(f"{self.url} is a file, not a folder", hint="correct --store")

    def local_path(self, name: str) -> Path:
        """Return where the object is."""
        return Path(self.root, name)

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a small object."""

        def attempt() -> None:
            with self._part(name) as part:
                part.write(data)
                part.publish()

        self._try("write", name, attempt)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file, read-only from then on."""

        def attempt() -> None:
            with self._part(name) as part, source.open("rb") as file:
                part.copy(file)
                os.fchmod(part.file.fileno(), 0o444)
                if part.file.tell() != os.fstat(file.fileno()).st_size:
                    raise ShortRead(f"{part.file.tell()} bytes arrived")
                part.publish()

        self._try("upload", name, attempt)

    def refresh(self, source: Path, name: str) -> None:
        """Set the object's time to now."""
        self._try("touch", name, lambda: os.utime(self.local_path(name)))

    def _read(self, name: str) -> bytes:
        handle = _open_file(self.local_path(name))
        try:
            return os.read(handle, min(os.fstat(handle).st_size, SMALL) + 1)
        finally:
            os.close(handle)

    def _create(self, name: str, data: bytes) -> bool:
        with self._part(name) as part:
            part.write(data)
            return part.publish_new()

    def sweep(self) -> None:
        """Remove the partial files of processes that were killed: the locks of those at work hold."""
        parts = Path(self.root, "parts")
        found: list[Path] = []
        with suppress(OSError):  # other processes remove the folder whenever it is empty
            found = list(parts.iterdir())
        for path in filter(_is_part, found):  # a user may keep files of their own in a folder of that name
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        _drop_if_empty(parts)

    def _part(self, name: str) -> _PartialFile:
        return _PartialFile(self.local_path(name), Path(self.root, "parts"))

    def _hash(self, name: str) -> tuple[int, str]:
        with os.fdopen(_open_file(self.local_path(name)), "rb") as file:
            try:
                return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise Damaged(f"{name}: its disk cannot read it ({error})") from error

    def _found(self, name: str) -> ObjectInfo | None:
        try:
            found = os.stat(f"{self.root}/{name}")  # noqa: PTH116 - plans do this by the thousand
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise
        return ObjectInfo(found.st_size, found.st_mtime)

    def _listing(self, prefix: str) -> dict[str, ObjectInfo]:
        return dict(_walk(self._path(prefix), prefix))

    def _move(self, name: str, target: str) -> None:
        path = self.local_path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.local_path(name).replace(path)
        os.utime(path, follow_symlinks=False)  # kept for as long as garbage collection keeps what is new

    def _delete(self, name: str) -> None:
        path = self.local_path(name)
        path.unlink(missing_ok=True)
        if name.startswith("resume/"):  # a folder for each restart point; other folders are used again
            for folder in path.parents[: len(Path(name).parents) - 1]:
                _drop_if_empty(folder)


class _PartialFile:
    """A file being written on the disk of its final place; gone afterwards unless published.

    It is locked, so that a sweep takes it for abandoned only once its process has ended.
    """

    def __init__(self, target: Path, parts: Path) -> None:
        self.target = target
        self._parts = parts

    def __enter__(self) -> _PartialFile:
        for attempt in itertools.count(1):
            self.path = self._parts / uuid.uuid4().hex
            try:
                for folder in (self.target.parent, self._parts):
                    folder.mkdir(parents=True, exist_ok=True)
                self.file = self.path.open("wb")
            except (FileNotFoundError, FileExistsError):  # another process removes empty folders
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0, _OUT_OF_STEP_S))
                continue
            if self._locked():
                break
            self.file.close()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with naming(self.path):
                self.file.close()  # writes what is left, and fails again where the disk is full
        finally:
            self.path.unlink(missing_ok=True)
            _drop_if_empty(self._parts)

    def _locked(self) -> bool:
        """Lock the file; False if a sweep was quicker."""
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks, on which nothing is swept
        return self.path.exists()

    def write(self, data: bytes) -> None:
        with naming(self.path):
            self.file.write(data)

    def copy(self, source: BinaryIO) -> None:
        with naming(self.path):
            shutil.copyfileobj(source, self.file, CHUNK)

    def publish(self) -> None:
        """Put the file in its place, replacing what is there; on disk before it is visible."""
        self._sync()
        self.path.replace(self.target)
        self._sync_folder()

    def publish_new(self) -> bool:
        """Put the file in its place unless there is one; return whether it was put."""
        self._sync()
        try:
            os.link(self.path, self.target)  # fails if there is a target; a rename does not
        except FileExistsError:
            return False
        self._sync_folder()
        return True

    def _sync(self) -> None:
        with naming(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())

    def _sync_folder(self) -> None:
        handle = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_part(path: Path) -> bool:
    return bool(_PART.fullmatch(path.name))


def _open_file(path: Path) -> int:
    """Open a file for reading; whatever else has its name is damage, and a pipe must not make us wait."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise Damaged(f"{path}: is not a file: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Damaged(f"{path}: is not a file")
    return handle


def _drop_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        name = f"{prefix}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name)
        else:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=_leads_somewhere(entry))
                yield name, ObjectInfo(found.st_size, found.st_mtime)


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except OSError:  # a link that is broken or leads back to itself: listed as what it is
        return False
    return True
