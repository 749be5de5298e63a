"""The artifact store: content-addressed files with a record for each finished node, on any fsspec storage.

    blobs/<aa>/<sha256>               immutable bytes, named by their hash
    records/<stage>/<key>.json        what was hashed, the files, metrics, provenance, inputs
    leases/<stage>/<key>.<fence>.json who is making it now (`flows.store.leases`)
    roots/<name>.json                 what garbage collection keeps (`flows.store.roots`, `flows.store.gc`)
    resume/<stage>/<key>/             restart points of a running stage (`flows.store.restart_points`)
    damaged/<name>.<token>            bytes that were set aside (`flows.store.blobs`)

Blobs go first, the record last and only if absent: no record, no artifact. Every hit checks that its blobs
are there, and every use that their bytes are right (`flows.store.blobs`); a missing one is a miss with a
warning, and a store that cannot be reached is an error, never a miss. Keys and payloads are made by the
planner; nothing here knows what a stage does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.settings import cache_folder
from flows.store import leases, roots
from flows.store.blobs import Blobs, missing, remade_by
from flows.store.catalog import Catalog, newest_first
from flows.store.folders import link, scan
from flows.store.leases import Lease, LeaseInfo
from flows.store.records import (
    ArtifactFile,
    Record,
    Ref,
    from_bytes,
    record_name,
    to_bytes,
)
from flows.store.restart_points import StoreRestartPoints
from flows.store.roots import Hold
from flows.store.storage.base import Storage
from flows.store.storage.open import open_storage
from flows.store.storage.retry import Retry
from nanochat.errors import Damaged, Interrupted, StoreError

logger = logging.getLogger(__name__)
_NAMED_AT_MOST = 5  # damaged records in one warning each


class Store:
    """Artifacts at one URL."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self.storage = storage
        self.cache = cache
        self.blobs = Blobs(storage, cache)
        self.catalog = Catalog(storage, cache)
        self._proven = not storage.shared

    @classmethod
    def open(
        cls,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        retry: Retry | None = None,
    ) -> Store:
        """Open the store at `url`: a folder, `s3://bucket/prefix`, `memory://name` or another fsspec URL.

        `cache` is a local folder for files of a remote store (default: `flows.settings.cache_folder`).
        Writes nothing; what a shared store must guarantee is proven before the first write (`prove`).

        Raises:
            StoreUnavailable: it cannot be reached, has no such bucket, or refuses the credentials.
        """
        storage = open_storage(url, storage_options or {}, retry or Retry())
        return cls(storage, cache or cache_folder())

    @property
    def url(self) -> str:
        """Where it is."""
        return self.storage.url

    # Reading

    def find(self, stage: str, key: str) -> Record | None:
        """Return the record of a finished node whose files are all there, or None."""
        return self._whole(self.catalog.load_all([(stage, key)])).get((stage, key))

    def find_many(self, refs: Iterable[Ref]) -> dict[Ref, Record]:
        """Return those of many records that `find` would return; made for thousands."""
        return self._whole(self.find_records(refs))

    def find_records(self, refs: Iterable[Ref]) -> dict[Ref, Record]:
        """Return those of many records that exist, whether or not their blobs do."""
        return self.catalog.find(refs)

    def missing_blobs(self, records: Iterable[Record]) -> set[Ref]:
        """Return which of these records have lost bytes; logs a warning for each missing blob."""
        by_ref = {(r.stage, r.key): r for r in records}
        return set(by_ref) - set(self._whole(by_ref))

    def records(self, stage: str | None = None) -> list[Record]:
        """Return all readable records, or those of one stage, newest first; reads each."""
        listed = self.catalog.listed(stage)
        return newest_first(self.catalog.load_all(listed, listed), listed)

    def resolve(self, ref: str) -> Record:
        """Return the record that `ref` names: a stage or node (its newest), or `stage/<key prefix>`.

        Raises:
            StoreError: nothing or several match; lists what there is.
        """
        return self.catalog.resolve(ref)

    def fetch(self, record: Record, target: Path, *, attachments: bool = False) -> Path:
        """Fill the folder `target` with links to the read-only files of an artifact; return it.

        Every file has been proven. Raises:
            Damaged: a file is missing or its bytes are not what the record says; it is a miss from now on.
        """
        target.mkdir(parents=True, exist_ok=True)
        files = record.files + (record.attachments if attachments else ())
        try:
            self.storage.each(lambda file: link(self.blob_path(file), target / file.path), files)
        except Damaged as error:
            raise Damaged(str(error), hint=remade_by(record.stage)) from error
        return target

    def blob_path(self, file: ArtifactFile) -> Path:
        """Return a local read-only file that has been proven to hold the bytes of `file`."""
        return self.blobs.path(file)

    def read_bytes(self, file: ArtifactFile) -> bytes:
        """Return the bytes of one file, proven by their hash."""
        return self.blobs.read(file)

    # Making

    def prove(self) -> None:
        """Prove that a shared store keeps conditional writes; raise `StoreError` if not or if read-only."""
        if not self._proven:
            self.storage.probe()
            self._proven = True

    def acquire(
        self,
        stage: str,
        key: str,
        *,
        needs: Iterable[Ref] = (),
        ttl_s: float = 30.0,
        poll_s: float = 0.5,
        stop: threading.Event | None = None,
        on_wait: Callable[[LeaseInfo], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        ignore_record: bool = False,
    ) -> Lease | Record:
        """Wait until this is the one to make (stage, key), or until somebody else has made it.

        `needs` are the records that the work reads: garbage collection leaves them alone meanwhile. `on_wait`
        is called once with the lease that is waited for, `on_lost` from a thread if the lease is lost.
        `ignore_record` makes again what is there already. Raises `Interrupted` once `stop` is set.
        """
        self.prove()
        reported = False
        while True:
            if not ignore_record and (record := self.find(stage, key)):
                return record
            held = leases.try_acquire(
                self.storage, stage, key, ttl_s=ttl_s, needs=tuple(needs), on_lost=on_lost
            )
            if isinstance(held, Lease):
                if not ignore_record and (record := self.find(stage, key)):  # published since the look before
                    held.release()
                    return record
                return held
            if on_wait and not reported:
                reported = True
                on_wait(held)
            if (stop or threading.Event()).wait(poll_s):
                raise Interrupted(f"stopped while waiting for {stage}/{key[:12]} on {held.host}")

    def commit(
        self,
        *,
        stage: str,
        node: str,
        key: str,
        payload: Mapping[str, Any],
        folder: Path,
        attachments: Sequence[str] = (),
        metrics: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        replace: bool = False,
    ) -> Record:
        """Keep the files of `folder` as the artifact of (stage, key); return its record.

        A whole record that is there already is kept (unless `replace`); a different result logs a warning,
        always. Bytes that are there already are proven before they are kept, or put in again.

        Raises:
            StoreError: the folder is empty or holds what cannot be kept, or the store cannot be written.
            LeaseLost: somebody else took over; nothing was published.
        """
        self.prove()
        scanned = scan(folder, attachments)
        record = Record(
            stage=stage,
            node=node,
            key=key,
            payload=payload,
            files=scanned.files,
            attachments=scanned.attachments,
            metrics=metrics or {},
            provenance=provenance or {},
            inputs=inputs or {},
        )
        data = to_bytes(record)  # before any upload: a value that JSON cannot hold ends here
        record = _as_read_back(data, record)
        again = replace or self.storage.found(record_name(stage, key)) is not None
        self.blobs.upload(scanned, suspect=again)
        if lease:
            lease.check()
        kept = self._publish(record, data, replace=replace)
        roots.wait_for_collector(self.storage)
        hashes = set(scanned.sources)
        if hashes - self.blobs.sizes(hashes).keys():  # a collector took bytes that no record named yet
            self.blobs.upload(scanned)
        return kept

    def sweep(self) -> None:
        """Remove what killed runs have left half-written or held."""
        self.storage.sweep()
        leases.sweep(self.storage)
        roots.sweep(self.storage)

    def restart_points(self, stage: str, key: str, lease: Lease | None = None) -> StoreRestartPoints:
        """Return where a running stage keeps its restart points."""
        return StoreRestartPoints(self.storage, stage, key, self.cache, lease)

    def drop_restart_points(self, stage: str, key: str) -> None:
        """Remove a stage's restart points, once it has published."""
        self.restart_points(stage, key).drop()

    # Keeping

    def set_root(self, name: str, refs: Iterable[Ref]) -> None:
        """Name records that garbage collection keeps, with everything they were made from."""
        roots.set_root(self.storage, name, refs)

    def roots(self) -> dict[str, list[Ref]]:
        """Return the named roots, without those of running plans."""
        found = roots.read_roots(self.storage)
        return {name: list(each.root.records) for name, each in found.items() if not each.root.temporary}

    def drop_root(self, name: str) -> None:
        """Forget a root."""
        roots.drop_root(self.storage, name)

    def hold(self, name: str, *, stop: threading.Event | None = None) -> Hold:
        """Return a root for as long as something runs, empty at first; `stop` ends its waits."""
        return Hold(self.storage, name, stop=stop)

    # Inside

    def load(self, stage: str, key: str) -> Record:
        """Return a record without looking at its blobs; raise FileNotFoundError or `Damaged`."""
        return self.catalog.load((stage, key))

    def _whole(self, records: Mapping[Ref, Record]) -> dict[Ref, Record]:
        """Return those whose blobs are all there; log a warning for the others."""
        sizes = self.blobs.sizes({f.sha256 for r in records.values() for f in (*r.files, *r.attachments)})
        whole = {}
        for ref, record in records.items():
            bad = [f for f in (*record.files, *record.attachments) if sizes.get(f.sha256) != f.size]
            for file in bad:
                logger.warning("%s/%s: treated as a miss: %s", *ref, missing(file, sizes.get(file.sha256)))
            if not bad:
                whole[ref] = record
        return whole

    def _publish(self, record: Record, data: bytes, *, replace: bool) -> Record:
        """Write a record, or keep the one that is there; return which."""
        name = record_name(record.stage, record.key)
        if replace:
            self._warn_if_other(self._former(record), record, "the new one replaces it")
            self.storage.write(name, data)
            return record
        return record if self.storage.create(name, data) else self._keep_former(record, data)

    def _keep_former(self, record: Record, data: bytes) -> Record:
        """Return the record to keep where there was one before."""
        there = self.find(record.stage, record.key)
        if there is None:  # a record that had lost its blobs, or its own bytes: this one heals it
            lost = "the first has lost its bytes, so the new one replaces it"
            self._warn_if_other(self._former(record), record, lost)
            self.storage.write(record_name(record.stage, record.key), data)
            return record
        self._warn_if_other(there, record, "the first is kept")
        return there

    def _former(self, record: Record) -> Record | None:
        """Return the record that is there, whether or not its blobs are; None if it cannot be read."""
        try:
            return self.load(record.stage, record.key)
        except (FileNotFoundError, Damaged):
            return None

    def _warn_if_other(self, former: Record | None, record: Record, so: str) -> None:
        if former is not None and former.digest != record.digest:
            differing = sorted({f.path for f in set(former.files) ^ set(record.files)})
            logger.warning(
                "%s/%s gave a different result than before for the same inputs: %s differ; %s",
                record.stage, record.key, ", ".join(differing), so,
            )  # fmt: skip


def _as_read_back(data: bytes, record: Record) -> Record:
    """Return a record as every later reader sees it; one that no reader would accept is an error now."""
    try:
        return from_bytes(data, (record.stage, record.key))
    except ValueError as error:
        raise StoreError(f"{record.stage}/{record.key}: cannot be recorded: {error}") from error
