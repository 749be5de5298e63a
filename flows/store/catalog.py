"""The records of a store: listed, found and read with as few requests as a remote storage allows.

A listing says which records there are and when each was written, a thousand with one request. A finished
record stays as it is: a copy of each that a listing has shown is kept in the local cache, and is read instead
for as long as listings show the same object (its ETag; a record that was replaced has another). Blobs are
not looked at here.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flows.store import schema
from flows.store.records import Record, Ref, finished_at, from_bytes, record_name, ref_of
from flows.store.storage.base import ObjectInfo, Storage
from nanochat.errors import Damaged, StoreError

logger = logging.getLogger(__name__)
Listed = Mapping[Ref, ObjectInfo]
_NAMED_AT_MOST = 5  # damaged records in one warning each
_AT_ONCE = 16  # records read at a time while looking for one
_KEY_DIGITS = 8  # as many digits are taken for the beginning of a key before any node's name


class Catalog:
    """The records at one storage; `cache` is a local folder for copies of those of a remote one."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self._storage = storage
        address = hashlib.sha256(storage.url.encode()).hexdigest()[:16]
        self._copies = cache / "records" / address if storage.shared else None

    def listed(self, stage: str | None = None) -> dict[Ref, ObjectInfo]:
        """Return which records there are, or those of one stage, newest first; reads none."""
        if stage and not re.fullmatch(schema.NAME, stage):
            return {}  # no record has such a stage, and no folder but ours is looked into
        found = self._storage.listing(f"records/{stage}" if stage else "records")
        refs = [(ref, file) for name, file in found.items() if (ref := ref_of(name))]
        return dict(sorted(refs, key=lambda each: (-each[1].mtime, each[0])))

    def load(self, ref: Ref, listed: ObjectInfo | None = None) -> Record:
        """Return a record, as it was listed if it was; raise FileNotFoundError or `Damaged`."""
        copy = self._copy_of(ref) if listed and listed.etag else None
        if copy is None or listed is None or listed.etag is None:
            return self._storage.read_as(record_name(*ref), lambda data: from_bytes(data, ref))
        with suppress(OSError, ValueError):
            etag, _, data = copy.read_bytes().partition(b"\n")
            if etag == listed.etag.encode():
                return from_bytes(data, ref)
        record, data = self._storage.read_as(record_name(*ref), lambda data: (from_bytes(data, ref), data))
        _keep(copy, listed.etag.encode() + b"\n" + data)
        return record

    def load_all(self, refs: Iterable[Ref], listed: Listed | None = None) -> dict[Ref, Record]:
        """Return the readable ones of these records; logs a warning for each damaged one."""

        def load(ref: Ref) -> Record | None:
            try:
                return self.load(ref, (listed or {}).get(ref))
            except FileNotFoundError:
                return None
            except Damaged as error:
                damaged.append(f"{ref[0]}/{ref[1]}: damaged record, treated as a miss: {error}")
                return None

        damaged: list[str] = []
        refs = list(refs)
        loaded = zip(refs, self._storage.each(load, refs), strict=True)
        _warn_of(damaged)
        return {ref: record for ref, record in loaded if record}

    def find(self, refs: Iterable[Ref]) -> dict[Ref, Record]:
        """Return those of these records that exist; a stage of which many are wanted is listed first."""
        wanted = list(dict.fromkeys(refs))
        stages = Counter(stage for stage, _ in wanted)
        listed = {stage: self.listed(stage) for stage, count in stages.items() if count > _AT_ONCE}
        there = [ref for ref in wanted if ref[0] not in listed or ref in listed[ref[0]]]
        return self.load_all(there, {ref: file for found in listed.values() for ref, file in found.items()})

    def newest(self, listed: Listed) -> Iterator[Record]:
        """Yield the readable ones of these records, newest first; reads some at a time."""
        refs = list(listed)
        for start in range(0, len(refs), _AT_ONCE):
            loaded = self.load_all(refs[start : start + _AT_ONCE], listed)
            yield from newest_first(loaded, listed)

    def resolve(self, ref: str) -> Record:
        """Return the record that `ref` names: a stage or node (its newest), or `stage/<key prefix>`.

        Raises:
            StoreError: nothing or several match; lists what there is.
        """
        stage, _, rest = ref.partition("/")
        listed = self.listed(stage)
        by_key = {found: file for found, file in listed.items() if found[1].startswith(rest)}
        sure = rest and by_key and re.fullmatch(rf"[0-9a-f]{{{_KEY_DIGITS},64}}", rest)
        matching = self.newest(by_key) if sure or not rest else self._of_node(ref, listed)
        first = next(matching, None)
        if first is None and rest and not sure:
            first = next(self.newest(by_key), None)
        if first is None:
            raise self._unknown(ref, listed)
        if rest and first.node != ref and len(by_key) > 1:
            raise StoreError(f"{ref}: {len(by_key)} records match", hint=_candidates(list(by_key)))
        return first

    def _of_node(self, node: str, listed: Listed) -> Iterator[Record]:
        return (record for record in self.newest(listed) if record.node == node)

    def _unknown(self, ref: str, listed: Listed) -> StoreError:
        stage, _, rest = ref.partition("/")
        if listed:
            unreadable = any(key.startswith(rest) for _, key in listed)
            problem = "cannot be read" if unreadable else f"no record has a key beginning with {rest!r}"
            return StoreError(f"{ref}: {problem}", hint=_candidates(list(listed)))
        known = sorted({stage for stage, _ in self.listed()})
        near = difflib.get_close_matches(stage, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'no records yet'}"
        return StoreError(f"{self._storage.url} has no record of a stage {stage!r}", hint=hint)

    def _copy_of(self, ref: Ref) -> Path | None:
        return self._copies / ref[0] / ref[1] if self._copies else None


def newest_first(records: Mapping[Ref, Record], listed: Listed) -> list[Record]:
    """Return records by the time when each was finished, as far as it says so."""
    return sorted(records.values(), key=lambda r: finished_at(r, listed[r.stage, r.key].mtime), reverse=True)


def _keep(copy: Path, data: bytes) -> None:
    """Write a copy; without one, the record is read again the next time."""
    part = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(copy)
    except OSError as error:
        logger.debug("%s: no copy kept: %s", copy, error)
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _warn_of(damaged: Sequence[str]) -> None:
    for line in damaged[:_NAMED_AT_MOST]:
        logger.warning("%s", line)
    if len(damaged) > _NAMED_AT_MOST:
        more = len(damaged) - _NAMED_AT_MOST
        logger.warning("and %d more damaged records: `nanochat verify` names them all", more)


def _candidates(refs: Sequence[Ref]) -> str:
    shown = ", ".join(f"{stage}/{key[:12]}" for stage, key in refs[:8])
    return f"the store has {shown}" + (f" and {len(refs) - 8} more" if len(refs) > 8 else "")
