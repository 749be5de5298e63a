"""Restart points of a running stage: `resume/<stage>/<key>/<step>-<token>/`, its manifest written last.

A folder without a manifest is ignored; the token keeps a stage that was thought dead from writing into its
successor's folder. The last two are kept; a damaged one is skipped for the one before it, and goes with the
next save. Dropped once the stage has published.
"""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from functools import partial
from pathlib import Path

from flows.store import schema
from flows.store.folders import scan
from flows.store.leases import Lease
from flows.store.records import ArtifactFile
from flows.store.schema import Count, Foreign
from flows.store.storage.base import Storage
from nanochat.errors import Damaged

logger = logging.getLogger(__name__)
_KEPT = 2
_MANIFEST = re.compile(r"(?P<step>\d{8,})-[0-9a-f]+/manifest\.json")


class Manifest(Foreign):
    """What a restart point consists of."""

    step: Count
    files: tuple[ArtifactFile, ...]


class StoreRestartPoints:
    """Restart points of one stage and key, kept in the store; implements `nanochat.runtime.RestartPoints`."""

    def __init__(self, storage: Storage, stage: str, key: str, cache: Path, lease: Lease | None) -> None:
        self.storage = storage
        self.prefix = f"resume/{stage}/{key}"
        self.cache = cache
        self.lease = lease

    def save(self, step: int, folder: Path) -> None:
        """Keep the files of `folder` as the restart point of `step`; all but the last two are removed."""
        point = f"{self.prefix}/{step:08d}-{uuid.uuid4().hex[:8]}"
        files = scan(folder).files
        for file in files:
            self.storage.upload(folder / file.path, f"{point}/files/{file.path}")
        if self.lease:
            self.lease.check()
        manifest = Manifest(step=step, files=files)
        self.storage.write(f"{point}/manifest.json", manifest.model_dump_json(indent=1).encode())
        self._drop_others(point)

    def latest(self) -> tuple[int, Path] | None:
        """Return the newest whole restart point as (step, local folder), or None."""
        for point in self._points():
            try:
                return self._load(point)
            except (Damaged, FileNotFoundError) as error:
                logger.warning("%s: restart point skipped: %s", point, error)
        return None

    def step(self) -> int:
        """Return the step of the newest restart point, or -1; its files are not looked at."""
        points = self._points()
        return int(points[0].rpartition("/")[2].partition("-")[0]) if points else -1

    def drop(self) -> None:
        """Remove all restart points, here and in the store."""
        names = self.storage.listing(self.prefix)
        self.storage.delete(*names)
        for point in {"/".join(name.split("/")[:4]) for name in names}:
            shutil.rmtree(self.cache / point, ignore_errors=True)

    def _points(self) -> list[str]:
        """Return the folders that have a manifest, newest first."""
        found = []
        for name, info in self.storage.listing(self.prefix).items():
            match = _MANIFEST.fullmatch(name.removeprefix(f"{self.prefix}/"))
            if match:
                found.append((int(match["step"]), info.mtime, name.removesuffix("/manifest.json")))
        return [point for _, _, point in sorted(found, reverse=True)]

    def _load(self, point: str) -> tuple[int, Path]:
        manifest = self.storage.read_as(f"{point}/manifest.json", partial(schema.read, Manifest))
        if manifest.step != int(point.rsplit("/", 1)[1].split("-")[0]):
            raise Damaged(f"it says that it is of step {manifest.step}")
        folder = self.storage.local_path(f"{point}/files") or self.cache / point
        for file in manifest.files:
            self._prove(f"{point}/files/{file.path}", file, folder / file.path)
        return manifest.step, folder

    def _prove(self, name: str, file: ArtifactFile, target: Path) -> None:
        if self.storage.local_path(name) is None:
            self.storage.download(name, target, file.size, file.sha256)
        elif self.storage.hash(name) != (file.size, file.sha256):
            raise Damaged(f"{target}: its bytes differ from their hash")

    def _drop_others(self, newest: str) -> None:
        """Keep the newest and the one before; those of later steps were passed over, being damaged."""
        points = self._points()
        since = points.index(newest) if newest in points else 0
        kept = tuple(f"{point}/" for point in points[since:][:_KEPT])
        names = [name for name in self.storage.listing(self.prefix) if not name.startswith(kept)]
        manifests_first = sorted(names, key=lambda name: not name.endswith("/manifest.json"))
        self.storage.delete(*manifests_first)
