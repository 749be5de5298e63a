"""A folder on this machine, or one that it has mounted.

A file is written below `parts/`, synced to disk, and then renamed to its place or, where it must be the
first, hard-linked to it: the link fails if there is one already, which is all the agreement that runs need.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from flows.store.storage.base import CHUNK, SMALL, ObjectInfo, Storage
from flows.store.storage.retry import ShortRead
from nanochat.errors import Damaged, StoreError, StoreUnavailable


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
                shutil.copyfileobj(file, part.file, CHUNK)
                os.fchmod(part.file.fileno(), 0o444)
                if part.file.tell() != os.fstat(file.fileno()).st_size:
                    raise ShortRead(f"{part.file.tell()} bytes arrived")
                part.publish()

        self._try("upload", name, attempt)

    def refresh(self, source: Path, name: str) -> None:
        """Set the object's time to now."""
        self._try("touch", name, lambda: os.utime(self.local_path(name)))

    def _read(self, name: str) -> bytes:
        with _open_file(self.local_path(name)) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, SMALL) + 1)

    def _create(self, name: str, data: bytes) -> bool:
        with self._part(name) as part:
            part.write(data)
            return part.publish_new()

    def _part(self, name: str) -> _PartialFile:
        path, parts = self.local_path(name), Path(self.root, "parts")
        for folder in (path.parent, parts):
            folder.mkdir(parents=True, exist_ok=True)
        return _PartialFile(path, parts / uuid.uuid4().hex)

    def _hash(self, name: str) -> tuple[int, str]:
        with _open_file(self.local_path(name)) as file:
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
        self.local_path(name).unlink(missing_ok=True)


class _PartialFile:
    """A file being written on the disk of its final place; gone afterwards unless published."""

    def __init__(self, target: Path, path: Path) -> None:
        self.target = target
        self.path = path

    def __enter__(self) -> _PartialFile:
        self.file = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        self.file.write(data)

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
        self.file.flush()
        os.fsync(self.file.fileno())

    def _sync_folder(self) -> None:
        handle = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _open_file(path: Path) -> BufferedReader:
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
    return os.fdopen(handle, "rb")


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
