"""The bytes of artifacts: blobs, named by their sha256.

Which blobs an artifact has is said by its record (`flows.store.records`); this module puts them into the
storage and gets them out, and knows nothing of keys. Nobody gets bytes that are not what their name says: a
blob is proven when it is asked for, which is remembered (`flows.store.proofs`), and a damaged one is set
aside, below `damaged/`, so that every record that uses it is a miss.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from flows.store.folders import Scanned
from flows.store.proofs import Proofs
from flows.store.records import ArtifactFile, blob_name
from flows.store.storage.base import Storage
from nanochat.errors import Damaged, StoreError, StoreUnavailable
from nanochat.file_digest import sha256_of

logger = logging.getLogger(__name__)
_UPLOADS = 4
_STAT_AT_MOST = 256  # blobs asked for one by one on a remote storage; more are cheaper to list
_LOOKS = 5  # at a blob that others set aside or put in again while it is read
_FRESH_S = 3600.0  # a blob older than this is renewed when it is used again, so that no collector takes it


class Blobs:
    """The blobs of one storage; `cache` is a local folder for those of a remote one."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self.storage = storage
        self.cache = cache
        self._proofs = Proofs(cache / "proven.jsonl")

    def path(self, file: ArtifactFile) -> Path:
        """Return a local read-only file that has been proven to hold the bytes of `file`.

        Raises:
            Damaged: the blob is missing, or its bytes are others; then it has been set aside.
        """
        name = blob_name(file.sha256)
        local = self.storage.local_path(name)
        if local is None:
            return self._downloaded(name, file)
        for _ in range(_LOOKS):
            found = self.storage.found(name)
            if found is None or found.size != file.size:
                raise missing(file, found.size if found else None)
            with suppress(FileNotFoundError):  # set aside since, by another reader
                before = local.stat()
                if self._is_sound(name, local, file.sha256):
                    return local
                if _same(before, local):
                    raise self._set_aside(name, file, "its bytes are not those of its hash")
        raise StoreUnavailable(f"blob {file.sha256[:12]} ({file.path}) was replaced whenever it was read")

    def read(self, file: ArtifactFile) -> bytes:
        """Return the bytes of one file, proven."""
        return self.path(file).read_bytes()

    def distrust(self, name: str, sha256: str) -> None:
        """Forget that a blob was proven, here or in the local copy: it has been read and is damaged."""
        path = self.storage.local_path(name)
        if path is not None and path.exists():
            self._proofs.forget(path.stat(), sha256)

    def put_back(self, sha256: str) -> bool:
        """Upload the local copy of a blob of a remote storage, if there is a sound one; return whether."""
        name = blob_name(sha256)
        cached = self.cache / name
        if self.storage.local_path(name) is not None or not self._is_sound(name, cached, sha256, again=True):
            return False
        self.storage.upload(cached, name)
        return True

    def sizes(self, hashes: set[str]) -> dict[str, int]:
        """Return the size of each of these blobs that is there."""
        if self.storage.workers > 1 and len(hashes) > _STAT_AT_MOST:
            listed = self.storage.listing("blobs")
            return {Path(name).name: found.size for name, found in listed.items()}
        ordered = list(hashes)
        looked = self.storage.each(lambda sha: self.storage.found(blob_name(sha)), ordered)
        return {sha: found.size for sha, found in zip(ordered, looked, strict=True) if found}

    def upload(self, scanned: Scanned, *, suspect: bool = False) -> None:
        """Put in the files of a folder that are not there yet; the others become young again.

        What is there is proven first in a folder; elsewhere that would cost as much as to put it in again,
        which is done if it is `suspect`: made again although there was a record of it.
        """
        sizes = {f.sha256: f.size for f in (*scanned.files, *scanned.attachments)}

        def is_there(name: str, sha256: str) -> bool:
            local = self.storage.local_path(name)
            return not suspect if local is None else self._is_sound(name, local, sha256, again=suspect)

        def put(sha256: str) -> None:
            name, source = blob_name(sha256), scanned.sources[sha256]
            found = self.storage.found(name)
            if found is None or found.size != sizes[sha256] or not is_there(name, sha256):
                self.storage.upload(source, name)
            elif time.time() - found.mtime > _FRESH_S:
                self.storage.refresh(source, name)

        self.storage.each(put, sizes, workers=_UPLOADS)

    def _downloaded(self, name: str, file: ArtifactFile) -> Path:
        cached = self.cache / name
        if cached.exists() and cached.stat().st_size == file.size:
            if self._is_sound(name, cached, file.sha256):
                return cached
            logger.warning("%s: its bytes have changed on this machine; fetched again", cached)
        try:
            self.storage.download(name, cached, file.size, file.sha256)
        except FileNotFoundError:
            raise missing(file, None) from None
        except Damaged as error:
            try:
                first, second = self.storage.hash(name), self.storage.hash(name)
            except FileNotFoundError:  # set aside since, by another reader
                raise missing(file, None) from None
            if first == second != (file.size, file.sha256):
                raise self._set_aside(name, file, str(error)) from error
            raise StoreUnavailable(f"{error}; it may be sound, and change on its way here") from error
        return cached

    def _is_sound(self, name: str, path: Path, sha256: str, *, again: bool = False) -> bool:
        """Return whether the local file of a blob has its bytes; if `again`, even if that is known."""
        try:
            found = path.stat()
            if not again and self._proofs.known(found, sha256):
                return True
            in_store = self.storage.local_path(name) is not None
            digest = self.storage.hash(name)[1] if in_store else sha256_of(path)
        except (Damaged, FileNotFoundError):
            return False
        if digest != sha256:
            self._proofs.forget(found, sha256)
            return False
        self._proofs.remember(found, sha256)
        return True

    def _set_aside(self, name: str, file: ArtifactFile, problem: str) -> Damaged:
        """Move a damaged blob out of the way; return the error that says so."""
        what = f"blob {file.sha256[:12]} ({file.path}) is damaged: {problem}"
        try:
            aside = self.storage.set_aside(name)
        except StoreError as error:
            return Damaged(f"{what}; it could not be set aside: {error}", hint=error.hint)
        return Damaged(f"{what}; set aside as {aside}", hint=remade_by())


def missing(file: ArtifactFile, size: int | None) -> Damaged:
    """Return the error of a blob that is not there, or of another size."""
    what = "is missing" if size is None else f"has {size} bytes instead of {file.size}"
    return Damaged(f"blob {file.sha256[:12]} ({file.path}) {what}", hint=remade_by())


def remade_by(stage: str = "STAGE") -> str:
    """Return what a user can do about an artifact of a stage that has lost its bytes."""
    return (
        f"`nanochat run RECIPE --until {stage}`, with the recipe that made it, makes it again; an imported"
        " model is imported again; `nanochat verify` names all damage"
    )


def _same(before: os.stat_result, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return (before.st_ino, before.st_mtime_ns, before.st_size) == (now.st_ino, now.st_mtime_ns, now.st_size)
