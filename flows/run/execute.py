"""Make one artifact: lease, inputs, run, commit. Plain functions without Prefect.

`execute` is what a worker does with one node whose key is known; whoever calls it (the Prefect task, a
test) decides order, retries and concurrency.
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from flows.run.provenance import describe
from flows.run.scratch import drop_partial, partial_folder, scratch_folder
from flows.stage import Node, RunFunction
from flows.stages import STAGES
from flows.store import Record, Store
from nanochat.errors import ConfigError, Damaged, Interrupted, LeaseLost
from nanochat.ranks.launch import launch
from nanochat.runtime import Runtime, Tracker

logger = logging.getLogger(__name__)
InputRecords = Mapping[str, Record | tuple[Record, ...]]
_FETCHES = 8  # artifacts fetched in parallel, as are the files of each
_LOOK_S = 0.2  # how long a wait may take to notice that the whole run was asked to stop


@dataclass(frozen=True, kw_only=True)
class Job:
    """One node with everything that is known before it runs."""

    node: Node
    key: str
    payload: Mapping[str, Any]
    inputs: InputRecords
    lineage: Mapping[str, Record]  # all ancestors by node id
    force: bool = False  # run although the record exists, and replace it


@dataclass(frozen=True, kw_only=True)
class ExecutionContext:
    """Where jobs run: the store, a scratch folder and the runtime settings."""

    store: Store
    scratch: Path
    runtime: Runtime
    dollars_per_hour: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The record of a node and whether it was made just now."""

    record: Record
    cached: bool


def execute(
    job: Job,
    context: ExecutionContext,
    tracker: Callable[[], Tracker],
    extra: Callable[[], Mapping[str, Any]],
) -> Outcome:
    """Return the job's record, making the artifact if the store does not have it.

    Waits while another process makes the same artifact. `tracker` and then `extra`
    (what joins the record's provenance) are called only if the stage runs.
    """
    store, stage = context.store, job.node.stage
    if not job.force and (record := store.find(stage.name, job.key)):
        return Outcome(record, cached=True)
    while True:
        context.runtime.raise_if_stopped()
        try:
            return _execute_once(job, context, tracker, extra)
        except LeaseLost as error:
            logger.warning("%s: %s", job.node.id, error)


def _execute_once(
    job: Job,
    context: ExecutionContext,
    tracker: Callable[[], Tracker],
    extra: Callable[[], Mapping[str, Any]],
) -> Outcome:
    """Take the lease, run, commit; LeaseLost if somebody else took over meanwhile."""
    store, stage = context.store, job.node.stage
    stop = _LinkedEvent(context.runtime.stop)
    held = store.acquire(
        stage.name,
        job.key,
        needs=[(r.stage, r.key) for r in records_of(job.inputs)],
        stop=stop,
        on_lost=stop.set,
        ignore_record=job.force,
    )
    if isinstance(held, Record):
        return Outcome(held, cached=True)
    with held as lease, scratch_folder(context.scratch) as scratch:
        runtime = replace(
            context.runtime,
            stop=stop,
            tracker=tracker(),
            restart_points=store.restart_points(stage.name, job.key, lease),
            scratch=scratch,
            partial=partial_folder(context.scratch, job.key),
        )
        started = time.time()
        out = scratch / "out"
        out.mkdir()
        try:
            metrics = _run(job.node, _inputs(job, store, scratch), out, runtime)
        except Interrupted:
            if lease.lost.is_set():  # that stopped the stage, not a user
                lease.check()
            raise
        finally:
            runtime.tracker.close()
        lease.check()
        record = store.commit(
            stage=stage.name,
            node=job.node.id,
            key=job.key,
            payload=job.payload,
            folder=out,
            attachments=stage.attachments,
            metrics=metrics,
            provenance={**describe(stage, started, context.dollars_per_hour, runtime), **extra()},
            inputs=input_summary(job.inputs),
            lease=lease,
            replace=job.force,
        )
        store.drop_restart_points(stage.name, job.key)
        drop_partial(context.scratch, job.key)
    return Outcome(record, cached=False)


def _run(node: Node, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> Mapping[str, Any]:
    """Run a node's stage function here, or on several ranks if it can and is asked to."""
    if node.stage.spreads and runtime.processes > 1:
        return launch(node.stage.run, node.config, inputs, out, runtime)
    return run_function(node.stage.run)(node.config, inputs, out, runtime)


def run_function(name: str) -> RunFunction:
    """Import a stage's run function, named `module:function`."""
    module, _, function = name.partition(":")
    return cast(RunFunction, getattr(importlib.import_module(module), function))


def refuse_other_key(planned: str, own: str, node_id: str) -> None:
    """Raise ConfigError if a worker's own key differs from the one that was planned for it."""
    if planned != own:
        raise ConfigError(
            f"{node_id} was planned with key {planned[:12]}, but this worker computes {own[:12]}",
            hint="planner and worker run different code or recipes; deploy the same commit to both",
        )


class InputsDamaged(Damaged):
    """Artifacts that a stage reads are damaged; names them all, so that they can be made again."""

    def __init__(self, found: Sequence[tuple[Record, Damaged]]) -> None:
        self.records = {(record.stage, record.key): record for record, _ in found}
        named = "; ".join(f"{record.node}: {error}" for record, error in found)
        super().__init__(named, hint=found[0][1].hint)


def _inputs(job: Job, store: Store, scratch: Path) -> dict[str, Path]:
    folders = {name: scratch / "inputs" / name for name in job.inputs}
    wanted: list[tuple[Record, Path]] = []
    for name, records in job.inputs.items():
        if isinstance(records, Record):
            wanted.append((records, folders[name]))
        else:
            wanted += _numbered(records, folders[name])
    _fetch(store, wanted)
    if job.node.stage.wants_lineage:
        folders["lineage"] = scratch / "inputs" / "lineage"
        folders["lineage"].mkdir(parents=True)
        for node_id, record in job.lineage.items():
            path = folders["lineage"] / f"{node_id.replace('/', '__')}.json"
            described = {**record.to_json(), "title": STAGES[record.stage].title}
            path.write_text(json.dumps(described), encoding="utf-8")
    return folders


def fetch_all(store: Store, records: Sequence[Record], folder: Path) -> None:
    """Fetch artifacts into numbered folders, several at a time: training waits for its shards only here."""
    _fetch(store, _numbered(records, folder))


def _numbered(records: Sequence[Record], folder: Path) -> list[tuple[Record, Path]]:
    return [(record, folder / f"{i:05d}") for i, record in enumerate(records)]


def _fetch(store: Store, wanted: Sequence[tuple[Record, Path]]) -> None:
    """Fetch each artifact into its folder; raise `InputsDamaged` naming all that are."""

    def fetch(record: Record, folder: Path) -> Damaged | None:
        try:
            store.fetch(record, folder)
        except Damaged as error:
            return error
        return None

    with ThreadPoolExecutor(_FETCHES) as pool:
        errors = list(pool.map(fetch, *zip(*wanted, strict=True))) if wanted else []
    if damaged := [(record, error) for (record, _), error in zip(wanted, errors, strict=True) if error]:
        raise InputsDamaged(damaged)


def records_of(inputs: InputRecords) -> list[Record]:
    """Return all records among a job's inputs, in order."""
    return [r for value in inputs.values() for r in ([value] if isinstance(value, Record) else value)]


def input_summary(inputs: InputRecords) -> dict[str, Any]:
    """Return what a record keeps about the records that it was made from."""

    def line(record: Record) -> dict[str, str]:
        return {"stage": record.stage, "node": record.node, "key": record.key, "digest": record.digest}

    return {k: line(v) if isinstance(v, Record) else [line(r) for r in v] for k, v in inputs.items()}


class _LinkedEvent(threading.Event):
    """Set when it or its parent is set: a lost lease stops one stage, a signal stops all."""

    def __init__(self, parent: threading.Event) -> None:
        super().__init__()
        self._parent = parent

    def is_set(self) -> bool:
        return super().is_set() or self._parent.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until either is set, looking at the parent now and then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            super().wait(min(left, _LOOK_S))
        return True
