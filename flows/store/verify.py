"""Reads back what the store holds and reports what is damaged. Repairs nothing: the next run does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from flows.store.fingerprint import fingerprint
from flows.store.records import ArtifactFile, Record, Ref, blob_name, record_name, ref_of
from flows.store.store import Store
from nanochat.errors import Damaged


@dataclass(frozen=True)
class Finding:
    """One damaged thing."""

    kind: Literal["blob", "record"]
    name: str  # its name in the store
    problem: str
    used_by: tuple[Ref, ...]  # records that cannot be used because of it


def verify(store: Store, refs: Iterable[str] | None = None) -> Iterator[Finding]:
    """Yield what is damaged among the records that `refs` name, or in the whole store."""
    records: list[Record] = []
    if refs is None:
        for name in sorted(store.storage.listing("records")):
            ref = ref_of(name)
            if ref is None:
                yield Finding("record", name, "is not a record's name", ())
                continue
            try:
                records.append(store.load(*ref))
            except Damaged as error:
                yield Finding("record", name, str(error), (ref,))
            except FileNotFoundError:  # collected since it was listed
                continue
    else:
        records = [store.resolve(ref) for ref in refs]
    for record in records:
        yield from _record_findings(record)
    yield from _blob_findings(store, records, everything=refs is None)


def _record_findings(record: Record) -> Iterator[Finding]:
    name, ref = record_name(record.stage, record.key), (record.stage, record.key)
    if (hashed := fingerprint(record.payload)) != record.key:
        yield Finding("record", name, f"its payload hashes to {hashed[:12]}, not to its key", (ref,))


def _blob_findings(store: Store, records: list[Record], *, everything: bool) -> Iterator[Finding]:
    users: dict[str, list[Ref]] = defaultdict(list)
    files: dict[str, ArtifactFile] = {}
    for record in records:
        for file in (*record.files, *record.attachments):
            users[blob_name(file.sha256)].append((record.stage, record.key))
            files[blob_name(file.sha256)] = file
    names = set(users) | (set(store.storage.listing("blobs")) if everything else set())
    for name in sorted(names):
        problem = _blob_problem(store, name, files.get(name))
        if problem:
            yield Finding("blob", name, problem, tuple(dict.fromkeys(users[name])))


def _blob_problem(store: Store, name: str, file: ArtifactFile | None) -> str | None:
    path = f" ({file.path})" if file else ""
    try:
        size, sha256 = store.storage.hash(name)
    except FileNotFoundError:
        return f"is missing{path}" if file else None
    if file and size != file.size:
        return f"has {size} bytes instead of {file.size}{path}"
    if sha256 != name.rsplit("/", 1)[-1]:
        return f"its bytes hash to {sha256[:12]}{path}"
    return None
