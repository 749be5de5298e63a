"""The DAG compared with the store: which nodes are hits, which must run, which wait, and why.

A plan reads records and nothing else; it runs nothing. Keys of nodes whose inputs must still be made are
not known yet ("wait"): such a node turns out to be a hit if its inputs come out with the same bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows import dag
from flows.plan.changes import changes_since, sentence
from flows.plan.code_digest import code_digest
from flows.plan.comparable import incomparable
from flows.plan.key import NoDigests, key_of_all, payload_of
from flows.plan.planned import Planned
from flows.plan.record_index import RecordIndex
from flows.stage import Node
from flows.stages import EVALUATIONS, PRETRAIN
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from flows.store.roots import Hold
from nanochat.config import EvaluateConfig, OverlapConfig, Recipe, TasksConfig
from nanochat.data.sources.corpus import Corpus, resolve_corpus
from nanochat.data.sources.required import require_core, require_tasks
from nanochat.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """All nodes of a recipe in an order in which they can run."""

    recipe: Recipe
    nodes: tuple[Planned, ...]
    warnings: tuple[str, ...] = ()
    corpus: Corpus | None = None  # which text is used, and what of its folder is not
    by_id: Mapping[str, Planned] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {p.node.id: p for p in self.nodes})

    @property
    def all_cached(self) -> bool:
        """Whether there is nothing to do."""
        return all(p.action == "hit" for p in self.nodes)

    @property
    def key(self) -> str:
        """What is planned, as one hash: known before any node is made, and the same in every store."""
        return key_of_all(p.node for p in self.nodes)

    @property
    def predicted_s(self) -> float:
        """Seconds that the nodes that are not hits took the last time they ran."""
        return sum(p.seconds or 0.0 for p in self.nodes if p.action != "hit")


def make_plan(
    recipe: Recipe,
    store: Store,
    *,
    until: str | None = None,
    force: Sequence[str] = (),
    needs_bytes: bool = True,
) -> Plan:
    """Compare a recipe with a store; raise ConfigError for an unknown stage or a data set that is missing.

    Without `needs_bytes` a record is a hit whether or not its bytes are there: for reading about a run.
    """
    corpus = resolve_corpus(recipe.corpus)
    nodes = _select(dag.build(recipe, corpus), until)
    _check_names(force, nodes)
    _check_tasks(nodes)
    return _compare(recipe, corpus, nodes, store, force, needs_bytes=needs_bytes)


def plan_held(plan: Plan, store: Store, hold: Hold, *, force: Sequence[str] = ()) -> Plan:
    """Hold all that a plan found or will make; return it, or what it is now if some was collected before."""
    nodes = tuple(p.node for p in plan.nodes)
    while True:
        hold.add((p.node.stage.name, p.key) for p in plan.nodes if p.key)
        hits = [(p.node.stage.name, p.record.key) for p in plan.nodes if p.action == "hit" and p.record]
        stages = dict.fromkeys(stage for stage, _ in hits)
        there = {ref for stage in stages for ref in store.catalog.listed(stage)}
        if there.issuperset(hits):  # a collector takes records first: their bytes are there as well
            return plan
        plan = _compare(plan.recipe, plan.corpus, nodes, store, force)


def _compare(
    recipe: Recipe,
    corpus: Corpus | None,
    nodes: Sequence[Node],
    store: Store,
    force: Sequence[str],
    *,
    needs_bytes: bool = True,
) -> Plan:
    index = RecordIndex(store, nodes)
    found: dict[str, Planned] = {}
    for level in _levels(nodes):
        keyed = {n.id: _keyed(n, found) for n in level}
        wanted = {n.id: (n.stage.name, key) for n in level if (key := keyed[n.id][0])}
        records = index.find(wanted.values())
        for node in level:
            key, payload = keyed[node.id]
            record = records.get(wanted[node.id]) if key else None
            found[node.id] = _decide(node, key, payload, record, found, node.stage.name in force, index)
    needed = _rebuild_missing(nodes, found, store) if needs_bytes else found
    trains = PRETRAIN.name in needed and needed[PRETRAIN.name].action != "hit"
    before = index.newest(PRETRAIN.name, recipe.name) if trains else None
    warning = incomparable(needed, before, index.find_one)
    return Plan(recipe, tuple(needed[n.id] for n in nodes), (warning,) if warning else (), corpus)


def _decide(
    node: Node,
    key: str | None,
    payload: Mapping[str, Any] | None,
    record: Record | None,
    found: Mapping[str, Planned],
    forced: bool,
    index: RecordIndex,
) -> Planned:
    if record is not None and not forced:
        drift = record.provenance.get("code_digest") not in (None, code_digest(node.stage))
        reason = f"made {record.provenance.get('finished_at', 'earlier')}"
        if drift:
            reason += "; its code has changed since, but not its version"
        return Planned(
            node=node, action="hit", reason=reason, key=key, payload=payload, record=record, drift=drift
        )
    last = index.nearest(node)
    seconds = last.provenance.get("seconds") if last else None
    changes = changes_since(last, payload or {**payload_of(node, NoDigests()), "inputs": None})
    if key is None:
        waits = [i for i in dag.input_ids(node) if found[i].action != "hit"]
        reason = "waits for " + _names(waits) + (f"; {sentence(changes)}" if changes else "")
        return Planned(node=node, action="wait", reason=reason, changes=changes, seconds=seconds)
    if forced and record is not None:
        reason = "forced"
    elif last is None:
        reason = index.absence(node.stage.name)
    else:
        reason = sentence(changes) or "its record is gone"
    return Planned(
        node=node, action="run", reason=reason, key=key, payload=payload, changes=changes, seconds=seconds
    )


def _rebuild_missing(nodes: Sequence[Node], found: dict[str, Planned], store: Store) -> dict[str, Planned]:
    """Turn hits whose bytes are gone into runs, but only those whose bytes are needed.

    The bytes of the last nodes (which nothing in the plan reads) and of evaluations (whose results every run
    shows) count as needed.
    """
    read_by = defaultdict(list)
    for node in nodes:
        for i in dag.input_ids(node):
            read_by[i].append(node.id)
    hits = [p.record for p in found.values() if p.record is not None]
    missing = store.missing_blobs(hits)
    for node in reversed(nodes):
        planned = found[node.id]
        needed = (
            not read_by[node.id]
            or node.stage.name in {stage.name for stage in EVALUATIONS.values()}
            or any(found[r].action != "hit" for r in read_by[node.id])
        )
        if planned.record is not None and needed and (planned.node.stage.name, planned.key) in missing:
            found[node.id] = Planned(
                node=node,
                action="run",
                reason="its record is here but its bytes are gone, and they are needed",
                key=planned.key,
                payload=planned.payload,
                seconds=planned.record.provenance.get("seconds"),
            )
    return found


def _keyed(node: Node, found: Mapping[str, Planned]) -> tuple[str | None, Mapping[str, Any] | None]:
    records = {i: found[i].record for i in dag.input_ids(node)}
    if any(record is None for record in records.values()):
        return None, None
    payload = payload_of(node, {i: record.digest for i, record in records.items() if record})
    return fingerprint(payload), payload


def _levels(nodes: Sequence[Node]) -> Iterable[list[Node]]:
    """Group nodes so that each group needs only earlier groups: one store look-up a group."""
    depth: dict[str, int] = {}
    groups: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        depth[node.id] = 1 + max((depth[i] for i in dag.input_ids(node)), default=-1)
        groups[depth[node.id]].append(node)
    return [groups[d] for d in sorted(groups)]


def _select(nodes: Sequence[Node], until: str | None) -> tuple[Node, ...]:
    if until is None:
        return tuple(nodes)
    _check_names([until], nodes)
    wanted = dag.ancestors(nodes, [n.id for n in nodes if n.stage.name == until])
    return tuple(n for n in nodes if n.id in wanted)


def _check_names(names: Sequence[str], nodes: Sequence[Node]) -> None:
    known = list(dict.fromkeys(n.stage.name for n in nodes))
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no stage {name!r} here", hint=f"stages: {', '.join(known)}")


def _check_tasks(nodes: Sequence[Node]) -> None:
    """Refuse missing data sets now, not after hours of training when they are first read."""
    configs = {node.stage.name: node.config for node in nodes}
    source = configs.get("tasks")
    if not isinstance(source, TasksConfig):
        return
    for config in configs.values():
        require_tasks(source, config)
    readers = (node.config for node in nodes if node.stage.reads_core)
    if any(isinstance(config, EvaluateConfig | OverlapConfig) and config.core for config in readers):
        require_core(source)


def _names(ids: Sequence[str]) -> str:
    by_stage: dict[str, int] = defaultdict(int)
    for i in ids:
        by_stage[i.partition("/")[0]] += 1
    return ", ".join(name if n == 1 else f"{name} ({n})" for name, n in by_stage.items())
