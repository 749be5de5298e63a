"""The records of one run, found by its recipe or by the lineage of one of them, and what is wrong with them.

A record or file that is missing or damaged is named and left out; it never ends a report. Records are read
whether or not their bytes are there.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows import dag
from flows.plan import Planned, make_plan
from flows.stage import Node
from flows.stages import EVALUATIONS, IMPORT, STAGES, TRAINED
from flows.store import ArtifactFile, Record, Ref, Store
from flows.store.lineage import lineage
from flows.store.records import input_refs, record_name
from nanochat import recipes
from nanochat.errors import ConfigError, Damaged, DataError, NanochatError, StoreError, StoreUnavailable
from nanochat.evals.results import parse_results

_ORDER = [*STAGES, IMPORT.name]
_NAMED_AT_MOST = 8  # files of one record


@dataclass(kw_only=True)
class RecordedRun:
    """What the store has of one run; `problems` grows with what turns out to be damaged as it is read."""

    name: str
    records: Mapping[str, Record]  # node -> record, in the order of the stages
    absent: Mapping[str, str] = field(default_factory=dict)  # node -> why there is no record of it
    problems: list[str] = field(default_factory=list)
    read: Callable[[ArtifactFile], bytes]

    def lines(self, node: str, path: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON-lines file; none where it is missing, and none of its bad lines."""
        data = self.content(node, path)
        if data is None:
            return []
        found = [_object(line) for line in data.splitlines() if line.strip()]
        if bad := found.count(None):
            self.note(
                f"{named(self.records[node])}: {bad:,} of {len(found):,} lines of {path} cannot be read"
            )
        return [line for line in found if line is not None]

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the `results.json` of each evaluated model, the last one being the chat model."""
        found = {}
        for model, stage in EVALUATIONS.items():
            data = self.content(stage.name, "results.json")
            if data is None:
                continue
            try:
                found[model] = parse_results(data, named(self.records[stage.name]))
            except DataError as error:
                self.note(str(error))
        return found

    def trained(self) -> list[str]:
        """Return the nodes that trained the model, in order."""
        return [name for name in TRAINED if name in self.records]

    def content(self, node: str, path: str) -> bytes | None:
        """Return a file of a node's artifact; None where there is none or it is damaged, which is noted."""
        record = self.records.get(node)
        file = record and next((f for f in (*record.files, *record.attachments) if f.path == path), None)
        if record is None or not file:
            return None
        try:
            return self.read(file)
        except StoreUnavailable:
            raise
        except (NanochatError, OSError) as error:
            self.note(f"{named(record)}: {path} cannot be read: {error}")
            return None

    def note(self, problem: str) -> None:
        """Remember what is damaged, once."""
        if problem not in self.problems:
            self.problems.append(problem)


def find_run(store: Store, name: str, overrides: Sequence[str] = ()) -> RecordedRun:
    """Return the run of a recipe, or the one that a record is part of: `sft`, `publish/1f2e3d4c`.

    Raises ConfigError for a name that is neither, StoreError where the store has nothing of it.
    """
    if name.partition("/")[0] in _ORDER:
        if overrides:
            raise ConfigError(
                f"{name} is a record, of which no field can be changed",
                hint="-o changes a recipe, such as: toy -o depth=3",
            )
        return _of_record(store, store.resolve(name))
    if name not in recipes.PRESETS:
        near = difflib.get_close_matches(name, [*recipes.PRESETS, *_ORDER], 1)
        raise ConfigError(
            f"there is no recipe and no record {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "`nanochat recipes` and `nanochat ls` list them",
        )
    return _of_recipe(store, name, overrides)


def named(record: Record) -> str:
    """Return what a record is called where a person types it."""
    return f"{record.stage}/{record.key[:12]}"


def _of_recipe(store: Store, name: str, overrides: Sequence[str]) -> RecordedRun:
    planned = make_plan(recipes.find(name, overrides), store, needs_bytes=False)
    records = _planned_records(store, planned.nodes)
    if not records:
        words = shlex.join([name, *(word for text in overrides for word in ("-o", text))])
        raise StoreError(
            f"no stage of recipe {name!r} is in {store.url}", hint=f"run it: nanochat run {words}"
        )
    absent = {p.node.id: p for p in planned.nodes if p.node.id not in records}
    damaged = _unreadable(store, ((p.node.stage.name, p.key) for p in absent.values() if p.key))
    reasons = {node: damaged.get((p.node.stage.name, p.key or ""), p.reason) for node, p in absent.items()}
    return _checked(store, planned.recipe.name, records.values(), reasons)


def _planned_records(store: Store, planned: Iterable[Planned]) -> dict[str, Record]:
    """Return the records of a plan's nodes, with those that were made from one that is lost by now."""
    found, keys = {}, {}
    for p in planned:
        keys[p.node.id] = p.key
        record = p.record or (None if p.key else _made_from(store, p.node, keys))
        if record:
            found[p.node.id], keys[p.node.id] = record, record.key
    return found


def _made_from(store: Store, node: Node, keys: Mapping[str, str | None]) -> Record | None:
    """Return the newest record of a node that was made from the records with these keys."""
    wanted = {(i.partition("/")[0], keys.get(i)) for i in dag.input_ids(node)}
    if None in {key for _, key in wanted}:
        return None
    newest = store.catalog.newest(store.catalog.listed(node.stage.name))
    return next(
        (
            r
            for r in newest
            if r.node == node.id
            and set(input_refs(r)) == wanted
            and r.payload.get("config") == node.config.identity()
        ),
        None,
    )


def _of_record(store: Store, record: Record) -> RecordedRun:
    found = {(r.stage, r.key): r for r in (record, *lineage(store, record))}
    for model in [r for r in found.values() if r.stage in TRAINED]:
        stage = TRAINED[model.stage].evaluated_by
        if stage and not any(r.stage == stage.name for r in found.values()):
            evaluations = store.catalog.newest(store.catalog.listed(stage.name))
            own = next((r for r in evaluations if (model.stage, model.key) in input_refs(r)), None)
            found |= {(r.stage, r.key): r for r in ([own, *lineage(store, own)] if own else ())}
    wanted = {ref: r for r in found.values() for ref in input_refs(r) if ref not in found}
    damaged = _unreadable(store, wanted)
    absent = {
        f"{stage}/{key[:12]}": damaged.get(
            (stage, key), f"its record is gone; {named(user)} was made from it"
        )
        for (stage, key), user in wanted.items()
    }
    recipe = record.provenance.get("recipe")
    return _checked(store, str(recipe or named(record)), found.values(), absent)


def _checked(store: Store, name: str, records: Iterable[Record], absent: Mapping[str, str]) -> RecordedRun:
    """Return a run in the order of the stages, with the files named that are not there."""
    order = sorted(
        records, key=lambda r: (_ORDER.index(r.stage) if r.stage in _ORDER else len(_ORDER), r.node)
    )
    sizes = store.blobs.sizes({f.sha256 for r in order for f in (*r.files, *r.attachments)})
    problems = []
    for record in order:
        bad = [f.path for f in (*record.files, *record.attachments) if sizes.get(f.sha256) != f.size]
        if bad:
            more = f" and {len(bad) - _NAMED_AT_MOST} more" if len(bad) > _NAMED_AT_MOST else ""
            listed = ", ".join(bad[:_NAMED_AT_MOST])
            problems.append(f"{named(record)}: missing, or not of the recorded size: {listed}{more}")
    by_node: dict[str, Record] = {}
    for record in order:
        by_node.setdefault(record.node, record)
    return RecordedRun(name=name, records=by_node, absent=absent, problems=problems, read=store.read_bytes)


def _unreadable(store: Store, refs: Iterable[Ref]) -> dict[Ref, str]:
    """Return what is wrong with those of these records that are there and cannot be read."""
    found = {}
    for ref in refs:
        try:
            store.load(*ref)
        except Damaged as error:
            found[ref] = f"{record_name(*ref)} is damaged: {error}"
        except FileNotFoundError:
            continue
    return found


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
