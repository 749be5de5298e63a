"""What a record was made from, back to the corpus. Reads records, never artifacts."""

from __future__ import annotations

from flows.store.records import Record, Ref, input_refs, inputs_of
from flows.store.store import Store


def lineage(store: Store, record: Record, *, at_most: int | None = None) -> list[Record]:
    """Return every ancestor's record that still exists, nearest first.

    With `at_most`, an input that is many artifacts is followed to its first ones only.
    """
    found: dict[Ref, Record] = {}
    frontier = _next(record, at_most)
    while frontier:
        level = store.find_records(ref for ref in frontier if ref not in found)
        found |= level
        frontier = [ref for parent in level.values() for ref in _next(parent, at_most)]
    return list(found.values())


def _next(record: Record, at_most: int | None) -> list[Ref]:
    if at_most is None:
        return list(input_refs(record))
    return [ref for refs in inputs_of(record).values() for ref in refs[:at_most]]
