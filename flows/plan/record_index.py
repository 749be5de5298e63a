"""What a plan asks of the records: each stage is listed once, each record is read at most once.

A hit is read by its key. To say why a node runs, and how long it took last time, the newest records of its
stage are looked at: as many as the plan has nodes there and a few more, however many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from flows.stage import Node
from flows.store import Record, Ref, Store
from flows.store.catalog import newest_first
from flows.store.storage.base import ObjectInfo

_MORE = 8  # looked at beyond one for each node
_OF_RECIPE = 64  # looked at for the last run of a recipe among those of others


class RecordIndex:
    """The records of the stages of a plan."""

    def __init__(self, store: Store, nodes: Sequence[Node]) -> None:
        self._catalog = store.catalog
        self._nodes = Counter(node.stage.name for node in nodes)
        self._listed: dict[str, dict[Ref, ObjectInfo]] = {}
        self._read: dict[Ref, Record] = {}
        self._nearest: dict[str, tuple[Record | None, dict[str, Record]]] = {}

    def find(self, refs: Iterable[Ref]) -> dict[Ref, Record]:
        """Return the records that exist, whether or not their bytes do."""
        present = [ref for ref in refs if ref in self._of(ref[0])]
        self._load(present)
        return {ref: self._read[ref] for ref in present if ref in self._read}

    def find_one(self, ref: Ref) -> Record | None:
        """Return a record if it exists."""
        return self.find([ref]).get(ref)

    def newest(self, stage: str, recipe: str) -> Record | None:
        """Return the newest record of a stage that a recipe of this name made, if it is not long ago."""
        records = self._newest(stage, _OF_RECIPE)
        return next((r for r in records if r.provenance.get("recipe") == recipe), None)

    def nearest(self, node: Node) -> Record | None:
        """Return the newest record of this very node, else the stage's newest, among those looked at."""
        name = node.stage.name
        if name not in self._nearest:
            records = self._newest(name, self._nodes[name] + _MORE)
            by_node = {r.node: r for r in reversed(records)}
            self._nearest[name] = (records[0] if records else None, by_node)
        newest, by_node = self._nearest[name]
        return by_node.get(node.id, newest if "/" not in node.id else None)

    def absence(self, stage: str) -> str:
        """Say what it means that `nearest` found nothing."""
        there, looked_at = len(self._of(stage)), self._nodes[stage] + _MORE
        if there <= looked_at:
            return "not in this store yet"
        return f"not among the {looked_at} newest of {there:,} records of its stage"

    def _newest(self, stage: str, count: int) -> list[Record]:
        """Return the newest records, up to `count` beside those that were read before, newest first."""
        listed = self._of(stage)
        self._load(list(listed)[:count])
        return newest_first({ref: self._read[ref] for ref in listed if ref in self._read}, listed)

    def _of(self, stage: str) -> dict[Ref, ObjectInfo]:
        if stage not in self._listed:
            self._listed[stage] = self._catalog.listed(stage)
        return self._listed[stage]

    def _load(self, refs: Iterable[Ref]) -> None:
        new = [ref for ref in refs if ref not in self._read]
        listed = {ref: self._of(ref[0])[ref] for ref in new}
        self._read |= self._catalog.load_all(new, listed)
