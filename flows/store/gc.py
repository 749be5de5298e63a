"""Garbage collection: removes what nobody has asked to keep.

It keeps the roots and everything they were made from, what running plans and stages hold, and everything
younger than the grace period; what runs is safe without one (`flows.store.roots` says why). Times are those
of the storage, since clocks of machines differ. Records go before the blobs that only they use, so that a
collector that dies half-way leaves blobs without records and never the reverse.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from flows.store.leases import UNREADABLE_S, Lease, LeaseInfo, all_leases
from flows.store.records import Record, Ref, blob_name, hash_of, input_refs, record_name, ref_of, root_name
from flows.store.roots import Found, read_roots, start_collecting
from flows.store.schema import HASH, NAME
from flows.store.storage.base import ObjectInfo
from flows.store.store import Store
from nanochat.errors import Damaged, StoreError

# Names that we give; what a user keeps in a folder that is called so has others.
_LEFTOVER = re.compile(
    rf"leases/{NAME}/{HASH}\.[0-9]+\.json"
    rf"|resume/{NAME}/{HASH}/[0-9]+-[0-9a-f]+/(?:manifest\.json|files/.+)"
    rf"|damaged/(?:{HASH}|[A-Za-z0-9._-]+\.json)\.[0-9a-f]{{8}}"
    r"|(?:parts|probe)/[0-9a-f]{32}"
)
_AT_ONCE = 256  # removed between two looks at whether the lease is still held
_UNFINISHED_S = 3600.0  # an upload that has not grown for this long is not under way


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What was removed, or would be."""

    dry_run: bool
    records: tuple[Ref, ...]
    names: tuple[str, ...]  # all removed objects, records included
    freed_bytes: int
    kept_records: int


def collect(
    store: Store,
    *,
    grace_s: float = 7 * 86400.0,
    dry_run: bool = False,
    without_roots: bool = False,
    keep: Iterable[Ref] = (),
) -> GcReport:
    """Remove what nothing needs and what is older than `grace_s` seconds; `keep` as if a root named it.

    Raises:
        StoreError: there are no roots (all would be removed; `without_roots` allows it), another collection
            runs, or a root, a record that is needed or a lease that may be live cannot be read, so that what
            it needs is unknown.
    """
    if not dry_run:
        store.prove()
    with nullcontext() if dry_run else start_collecting(store.storage) as lease:
        mine = store.storage.found(lease.info.name) if lease else None
        now = mine.mtime if mine and mine.mtime else time.time()
        before = now - grace_s
        doomed, kept_records = _doomed(store, now, before, keep=set(keep), without_roots=without_roots)
        if lease:
            doomed = _remove(store, doomed, before, lease)
    return GcReport(
        dry_run=dry_run,
        records=tuple(ref for name in doomed if (ref := ref_of(name))),
        names=tuple(doomed),
        freed_bytes=sum(found.size for found in doomed.values()),
        kept_records=kept_records,
    )


def _doomed(
    store: Store, now: float, before: float, *, keep: set[Ref], without_roots: bool
) -> tuple[dict[str, ObjectInfo], int]:
    """Return what is to be removed, and how many records are kept."""
    # Listed before the roots are read: what comes later is not in it, what comes earlier has a root by then.
    blobs = store.storage.listing("blobs")
    listed = {ref: found for name, found in store.storage.listing("records").items() if (ref := ref_of(name))}
    roots = read_roots(store.storage)
    if not without_roots and not keep and all(found.root.temporary for found in roots.values()):
        raise StoreError(
            f"{store.url} has no roots, so everything in it would be removed",
            hint="a finished run sets one; to empty the store, pass --without-roots",
        )
    rooted = keep | {ref for found in roots.values() if _counts(found, now) for ref in found.root.records}
    leases = [lease for lease in all_leases(store.storage) if lease.live]
    _require_readable(leases)
    busy = rooted | {(lease.stage, lease.key) for lease in leases}
    young = {ref for ref, found in listed.items() if found.mtime >= before}
    kept = _reachable(store, busy | young | {ref for lease in leases for ref in lease.needs}, listed)
    used = {blob_name(f.sha256) for r in kept.values() for f in (*r.files, *r.attachments)}

    doomed = {record_name(*ref): listed[ref] for ref in sorted(set(listed) - set(kept))}
    doomed |= {
        n: found for n, found in blobs.items() if hash_of(n) and n not in used and found.mtime < before
    }
    doomed |= dict(_leftovers(store, busy, before))
    ended = {root_name(name) for name, found in roots.items() if not _counts(found, now)}
    doomed |= {n: found for n, found in store.storage.listing("roots").items() if n in ended}
    return doomed, len(kept)


def _counts(found: Found, now: float) -> bool:
    return found.root.live(now - found.written)


def _reachable(store: Store, starts: Iterable[Ref], listed: Mapping[Ref, ObjectInfo]) -> dict[Ref, Record]:
    """Return the records that `starts` name and all that they were made from, as far as they still exist."""
    kept: dict[Ref, Record] = {}
    frontier = {ref for ref in starts if ref in listed}
    while frontier:
        loaded = store.storage.each(lambda ref: _load(store, ref, listed[ref]), sorted(frontier))
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


def _load(store: Store, ref: Ref, listed: ObjectInfo) -> Record | None:
    try:
        return store.catalog.load(ref, listed)
    except FileNotFoundError:
        return None
    except Damaged as error:
        raise StoreError(
            f"{record_name(*ref)} is needed but damaged, so what it was made from is unknown: {error}",
            hint="run its recipe again, which makes it again; nothing was removed",
        ) from error


def _leftovers(store: Store, busy: set[Ref], before: float) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield what is old of stages that are not running, of unfinished uploads and of damage set aside."""
    unfinished = before - _UNFINISHED_S
    limits = {
        "leases": before, "resume": before, "damaged": before, "parts": unfinished, "probe": unfinished,
    }  # fmt: skip
    for folder, limit in limits.items():
        for name, found in store.storage.listing(folder).items():
            stage, key = [*name.split("/"), "", ""][1:3]
            if _LEFTOVER.fullmatch(name) and found.mtime < limit and (stage, key.split(".")[0]) not in busy:
                yield name, found


def _remove(
    store: Store, doomed: Mapping[str, ObjectInfo], before: float, lease: Lease
) -> dict[str, ObjectInfo]:
    """Remove what is still as old as it was when listed: records first, blobs last.

    Raises LeaseLost if this collector was asleep for so long that runs no longer wait for it.
    """

    def still_old(name: str) -> bool:
        found = store.storage.found(name)
        limit = (
            doomed[name].mtime + 1 if name.startswith("roots/") else before
        )  # of these, any that has ended
        return found is not None and found.mtime < limit

    removed: dict[str, ObjectInfo] = {}
    for last in (False, True):
        names = [name for name in doomed if name.startswith("blobs/") is last]
        for start in range(0, len(names), _AT_ONCE):
            batch = names[start : start + _AT_ONCE]
            old = store.storage.each(still_old, batch)
            going = [name for name, is_old in zip(batch, old, strict=True) if is_old]
            lease.check()
            store.storage.delete(*going)
            removed |= {name: doomed[name] for name in going}
    return removed
