"""Garbage collection: removes what nobody has asked to keep.

It keeps the roots and everything they were made from, what running stages make and read, and everything
younger than the grace period, which must be longer than the longest commit. Records go before the blobs that
only they use, so that a collector that dies half-way leaves blobs without records and never the reverse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flows.store.leases import UNREADABLE_S, LeaseInfo, all_leases
from flows.store.records import Record, Ref, blob_name, hash_of, input_refs, record_name, ref_of
from flows.store.storage.base import ObjectInfo
from flows.store.store import Store
from nanochat.errors import Damaged, StoreError


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What was removed, or would be."""

    dry_run: bool
    records: tuple[Ref, ...]
    names: tuple[str, ...]  # all removed objects, records included
    freed_bytes: int
    kept_records: int


def collect(
    store: Store, *, grace_s: float = 7 * 86400.0, dry_run: bool = False, without_roots: bool = False
) -> GcReport:
    """Remove what nothing needs and what is older than `grace_s` seconds.

    Raises:
        StoreError: there are no roots (all would be removed; `without_roots` allows it), or a root, a record
            that is needed or a lease that may be live cannot be read, so that what it needs is unknown.
    """
    roots = {ref for refs in store.roots().values() for ref in refs}
    if not roots and not without_roots:
        raise StoreError(
            f"{store.url} has no roots, so everything in it would be removed",
            hint="a finished run sets one; to empty the store, pass --without-roots",
        )
    before = time.time() - grace_s
    blobs = store.storage.listing("blobs")  # listed before the marking: what comes later is not in it
    held = [lease for lease in all_leases(store.storage) if lease.live]
    _require_readable(held)
    listed = {ref: found for name, found in store.storage.listing("records").items() if (ref := ref_of(name))}
    young = {ref for ref, found in listed.items() if found.mtime >= before}
    starts = roots | young | {ref for lease in held for ref in ((lease.stage, lease.key), *lease.needs)}
    kept = _reachable(store, starts, listed)
    used = {blob_name(f.sha256) for r in kept.values() for f in (*r.files, *r.attachments)}

    dead = sorted(set(listed) - set(kept))
    doomed = {record_name(*ref): listed[ref] for ref in dead}
    doomed |= {n: f for n, f in blobs.items() if hash_of(n) and n not in used and f.mtime < before}
    doomed |= dict(_leftovers(store, held, set(kept), before))
    if not dry_run:
        doomed = _remove(store, doomed, before)
    return GcReport(
        dry_run=dry_run,
        records=tuple(dead),
        names=tuple(doomed),
        freed_bytes=sum(found.size for found in doomed.values()),
        kept_records=len(kept),
    )


def _reachable(store: Store, starts: Iterable[Ref], listed: Mapping[Ref, ObjectInfo]) -> dict[Ref, Record]:
    """Return the records that `starts` name and all that they were made from, as far as they still exist."""
    kept: dict[Ref, Record] = {}
    frontier = {ref for ref in starts if ref in listed}
    while frontier:
        loaded = store.storage.each(lambda ref: _load(store, ref), sorted(frontier))
        kept |= {(r.stage, r.key): r for r in loaded if r}
        made_from = {ref for r in loaded if r for ref in input_refs(r)}
        frontier = {ref for ref in made_from if ref in listed and ref not in kept}
    return kept


def _require_readable(held: Iterable[LeaseInfo]) -> None:
    """Refuse to collect while it is unknown what a stage that may be running reads."""
    for lease in held:
        if not lease.readable:
            raise StoreError(
                f"{lease.name} is damaged, so what its stage reads is unknown; nothing was removed",
                hint=f"it counts as held for {UNREADABLE_S / 60:.0f} minutes after it was written",
            )


def _load(store: Store, ref: Ref) -> Record | None:
    try:
        return store.load(*ref)
    except FileNotFoundError:
        return None
    except Damaged as error:
        raise StoreError(
            f"{record_name(*ref)} is needed but damaged, so what it was made from is unknown: {error}",
            hint="run its recipe again, which makes it again; nothing was removed",
        ) from error


def _leftovers(
    store: Store, held: Iterable[LeaseInfo], kept: set[Ref], before: float
) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield what is old of stages that are not running, of unfinished uploads and of damage set aside."""
    busy = {(lease.stage, lease.key) for lease in held}
    for folder in ("leases", "resume", "parts", "probe", "damaged"):
        for name, found in store.storage.listing(folder).items():
            stage, key = [*name.split("/"), "", ""][1:3]
            if found.mtime < before and (stage, key.split(".")[0]) not in busy:
                yield name, found


def _remove(store: Store, doomed: Mapping[str, ObjectInfo], before: float) -> dict[str, ObjectInfo]:
    """Remove what is still as old as it was when listed: records first, blobs last."""

    def still_old(name: str) -> bool:
        found = store.storage.found(name)
        return found is not None and found.mtime < before

    removed: dict[str, ObjectInfo] = {}
    for last in (False, True):
        names = [name for name in doomed if name.startswith("blobs/") is last]
        old = store.storage.each(still_old, names)
        going = [name for name, is_old in zip(names, old, strict=True) if is_old]
        store.storage.delete(*going)
        removed |= {name: doomed[name] for name in going}
    return removed
