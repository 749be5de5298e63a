"""Reads back what the store holds, reports what is damaged, and sets it aside if asked to.

Makes nothing again: what is set aside is a miss for the next run that needs it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from flows.store import schema
from flows.store.fingerprint import fingerprint
from flows.store.leases import UNREADABLE_S, LeaseInfo
from flows.store.records import (
    ArtifactFile,
    Record,
    Ref,
    blob_name,
    hash_of,
    lease_of,
    record_name,
    ref_of,
    root_of,
)  # fmt: skip
from flows.store.restart_points import Manifest
from flows.store.roots import Root
from flows.store.store import Store
from nanochat.errors import Damaged

Kind = Literal["blob", "record", "lease", "root", "restart point"]


@dataclass(frozen=True)
class Finding:
    """One damaged thing."""

    kind: Kind
    name: str  # its name in the store
    problem: str
    used_by: tuple[Ref, ...]  # records that cannot be used because of it


def verify(store: Store, refs: Iterable[str] | None = None) -> Iterator[Finding]:
    """Yield what is damaged among the records that `refs` name, or in the whole store."""
    records: list[Record] = []
    if refs is None:
        yield from _all_records(store, records)
        yield from _small_files(store)
    else:
        records = [store.resolve(ref) for ref in refs]
    for record in records:
        yield from _record_findings(record)
    yield from _blob_findings(store, records, everything=refs is None)


def _all_records(store: Store, readable: list[Record]) -> Iterator[Finding]:
    """Yield the damaged records; the others join `readable`."""
    for name in sorted(store.storage.listing("records")):
        ref = ref_of(name)
        if ref is None:
            yield Finding("record", name, "is not a record's name", ())
            continue
        try:
            readable.append(store.load(*ref))
        except Damaged as error:
            yield Finding("record", name, str(error), (ref,))
        except FileNotFoundError:  # collected since it was listed
            continue


def _small_files(store: Store) -> Iterator[Finding]:
    """Yield the damaged leases, roots and manifests of restart points."""
    for name in sorted(store.storage.listing("leases")):
        yield from _unreadable(store, "lease", name, partial(LeaseInfo.from_bytes, name), lease_of(name))
    for name in sorted(store.storage.listing("roots")):
        yield from _unreadable(store, "root", name, partial(schema.read, Root), root_of(name))
    for name in sorted(store.storage.listing("resume")):
        if name.endswith("/manifest.json"):
            yield from _unreadable(store, "restart point", name, partial(schema.read, Manifest), name)


def _unreadable(
    store: Store, kind: Kind, name: str, parse: Callable[[bytes], object], named: object
) -> Iterator[Finding]:
    if named is None:
        yield Finding(kind, name, f"is not a {kind}'s name", ())
        return
    try:
        store.storage.read_as(name, parse)
    except Damaged as error:
        yield Finding(kind, name, str(error), ())
    except FileNotFoundError:  # released or dropped since it was listed
        return


def _record_findings(record: Record) -> Iterator[Finding]:
    name, ref = record_name(record.stage, record.key), (record.stage, record.key)
    if (hashed := fingerprint(record.payload)) != record.key:
        yield Finding("record", name, f"its payload hashes to {hashed[:12]}, not to its key", (ref,))


def _blob_findings(store: Store, records: list[Record], *, everything: bool) -> Iterator[Finding]:
    users: dict[str, list[tuple[Ref, ArtifactFile]]] = defaultdict(list)
    for record in records:
        for file in (*record.files, *record.attachments):
            users[blob_name(file.sha256)].append(((record.stage, record.key), file))
    names = set(users) | (set(store.storage.listing("blobs")) if everything else set())
    for name in sorted(names):
        refs = tuple(dict.fromkeys(ref for ref, _ in users[name]))
        known = users[name][-1][1] if refs else None
        try:
            size, problem = _read_blob(store, name)
        except FileNotFoundError:
            size, problem = None, "is missing" if refs else None
        if problem:
            if known and size is not None and size != known.size:
                problem = f"has {size} bytes instead of {known.size}"
            yield Finding("blob", name, f"{problem} ({known.path})" if known else problem, refs)
            continue
        for ref, file in users[name]:
            if file.size != size:  # its bytes have its hash, so the record is wrong
                lie = f"says that {file.path} has {file.size} bytes; it has {size}"
                yield Finding("record", record_name(*ref), lie, (ref,))


def _read_blob(store: Store, name: str) -> tuple[int | None, str | None]:
    """Return the size of a blob and what is wrong with it; raise FileNotFoundError if there is none."""
    named = hash_of(name)
    if named is None:
        return None, "is not a blob's name, or leads to another folder"
    try:
        size, sha256 = store.storage.hash(name)
        if sha256 != named and store.storage.shared:  # it may have changed on its way here
            size, sha256 = store.storage.hash(name)
    except Damaged as error:
        return None, str(error)
    if sha256 == named:
        return size, None
    store.blobs.distrust(name, named)
    return size, f"its bytes hash to {sha256[:12]}"


def repair(store: Store, finding: Finding) -> str:
    """Set a damaged thing aside, so that the next run makes it again; return what was done, in words."""
    name = finding.name
    found = store.storage.found(name)
    if finding.kind == "root":
        return (
            "left as it is, since what it keeps is unknown: run its recipe again (or import the model"
            " again, or pass --keep again), which writes it anew"
        )
    if not (hash_of(name) or ref_of(name) or lease_of(name) or finding.kind == "restart point"):
        return "left as it is: no run reads it"
    if (sha256 := hash_of(name)) and store.blobs.put_back(sha256):
        return "put in again from the copy on this machine"
    if found is None:
        return "there is nothing to set aside"
    if finding.kind == "lease" and time.time() - found.mtime < UNREADABLE_S:
        return f"left as it is: whoever wrote it may be at work, until {UNREADABLE_S / 60:.0f} minutes later"
    return f"set aside as {store.storage.set_aside(name)}"
