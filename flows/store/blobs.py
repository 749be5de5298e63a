"""The bytes of artifacts: blobs, named by their sha256.

Which blobs an artifact has is said by its record (`flows.store.records`); this module puts them into the
storage and gets them out, and knows nothing of stages and keys.
"""

from __future__ import annotations

import time
from pathlib import Path

from flows.store.folders import Scanned
from flows.store.records import ArtifactFile, blob_name
from flows.store.storage.base import Storage, sha256_of
from nanochat.errors import Damaged

_UPLOADS = 4
_STAT_AT_MOST = 256  # blobs asked for one by one on a remote storage; more are cheaper to list
_FRESH_S = 3600.0  # a blob older than this is renewed when it is used again, so that no collector takes it
_HINT_VERIFY = "`nanochat verify` names all damage; the next run makes what is missing again"


class Blobs:
    """The blobs of one storage; `cache` is a local folder for those of a remote one."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self.storage = storage
        self.cache = cache

    def path(self, file: ArtifactFile) -> Path:
        """Return a local read-only file with the bytes of `file`, downloaded and proven if need be."""
        name = blob_name(file.sha256)
        local = self.storage.local_path(name)
        if local is not None:
            found = self.storage.found(name)
            if found is None or found.size != file.size:
                raise missing(file, found.size if found else None)
            return local
        cached = self.cache / name
        if not cached.exists() or cached.stat().st_size != file.size:
            try:
                self.storage.download(name, cached, file.size, file.sha256)
            except FileNotFoundError:
                raise missing(file, None) from None
        return cached

    def read(self, file: ArtifactFile) -> bytes:
        """Return the bytes of one file, proven by their hash."""
        path = self.path(file)
        if sha256_of(path) != file.sha256:
            raise Damaged(f"{file.path}: blob {file.sha256[:12]} does not match its hash", hint=_HINT_VERIFY)
        return path.read_bytes()

    def sizes(self, hashes: set[str]) -> dict[str, int]:
        """Return the size of each of these blobs that is there."""
        if self.storage.workers > 1 and len(hashes) > _STAT_AT_MOST:
            listed = self.storage.listing("blobs")
            return {Path(name).name: found.size for name, found in listed.items()}
        ordered = list(hashes)
        looked = self.storage.each(lambda sha: self.storage.found(blob_name(sha)), ordered)
        return {sha: found.size for sha, found in zip(ordered, looked, strict=True) if found}

    def upload(self, scanned: Scanned) -> None:
        """Put in the files of a folder that are not there yet; the others become young again."""
        sizes = {f.sha256: f.size for f in (*scanned.files, *scanned.attachments)}

        def put(sha256: str) -> None:
            name, source = blob_name(sha256), scanned.sources[sha256]
            found = self.storage.found(name)
            if found is None or found.size != sizes[sha256]:
                self.storage.upload(source, name)
            elif time.time() - found.mtime > _FRESH_S:
                self.storage.refresh(source, name)

        self.storage.each(put, sizes, workers=_UPLOADS)


def missing(file: ArtifactFile, size: int | None) -> Damaged:
    """Return the error of a blob that is not there, or of another size."""
    what = "is missing" if size is None else f"has {size} bytes instead of {file.size}"
    return Damaged(f"blob {file.sha256[:12]} ({file.path}) {what}", hint=_HINT_VERIFY)
