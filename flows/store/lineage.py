"""What a record was made from, back to the corpus. Reads records, never artifacts."""

from __future__ import annotations

from flows.store.records import Record, input_refs
from flows.store.store import Store


def lineage(store: Store, record: Record) -> list[Record]:
    """Return every ancestor's record that still exists, nearest first."""
    found: dict[tuple[str, str], Record] = {}
    frontier = list(input_refs(record))
    while frontier:
        level = store.find_records(ref for ref in frontier if ref not in found)
        found |= level
        frontier = [ref for parent in level.values() for ref in input_refs(parent)]
    return list(found.values())
