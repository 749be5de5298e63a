"""One run of a plan: makes its nodes one by one and reports to the display. No Prefect here.

Whoever drives a session (the Prefect engine, a test) calls `make` for each node once everything it needs is
made; the session knows keys, records and trackers, the driver knows order, threads and retries. While it
lasts, garbage collection leaves alone what it reads and makes; what it leaves is named as a root.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from flows import dag
from flows.display.run_display import RunDisplay
from flows.plan import Plan
from flows.plan.code_digest import code_digest
from flows.plan.key import payload_of
from flows.plan.plan import plan_held
from flows.run.earlier_runs import made_earlier, numbers
from flows.run.execute import (
    ExecutionContext,
    InputsDamaged,
    Job,
    Outcome,
    execute,
    refuse_other_key,
)
from flows.run.headline import headline, published_model
from flows.run.node_display import NodeDisplay
from flows.run.scratch import sweep
from flows.stage import Node
from flows.store import Record, Ref
from flows.store.fingerprint import fingerprint
from flows.store.roots import Hold
from nanochat.errors import Interrupted, StageFailed, fit_to_keep
from nanochat.runtime import NullTracker, Tracker
from nanochat.tracking import MultiTracker, run_tags

logger = logging.getLogger(__name__)
_REPAIRS = 3  # times that a node's inputs are made again; a disk that damages more is not worked around


@contextmanager
def begin(
    plan: Plan, context: ExecutionContext, display: RunDisplay, *, force: tuple[str, ...] = ()
) -> Iterator[Session]:
    """Begin a session of a plan, or of what the plan is now if some of it was collected since.

    Once the block has ended well, the result is a root of the store.
    """
    store = context.store
    with store.hold(plan.recipe.name, stop=context.runtime.stop) as hold:
        session = Session(plan_held(plan, store, hold, force=force), context, display, hold, force=force)
        yield session
        if display.mlflow:
            found = session.records
            display.mlflow.sum_up(headline(found), published_model(plan.recipe.name, found))
        if refs := session.results():
            store.set_root(f"{plan.recipe.name}-{plan.nodes[-1].node.stage.name}", refs)


class _Steps(NullTracker):
    """Notes that a stage has reported a step: before the first one there is nothing to keep."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        self._note()


class Session:
    """The state of one run: the records known so far, by node id."""

    def __init__(
        self,
        plan: Plan,
        context: ExecutionContext,
        display: RunDisplay,
        hold: Hold,
        *,
        force: tuple[str, ...] = (),
    ) -> None:
        self.plan = plan
        self.context = context
        self.display = display
        self.records: dict[str, Record] = {}
        self.executed: list[str] = []
        self._hold = hold
        self.stopped: str | None = None  # what the stage said that kept the last restart point
        self._stepping: set[str] = set()  # stages at work that keep restart points, from their first step on
        self._force = force
        # Shards run side by side; stages that use all cores or the GPU do not.
        self._device = threading.Lock()
        sweep(context.scratch)  # what killed runs left
        context.store.sweep()
        # Digests of the code as it is now, not as edited while stages run; and on this thread, because
        # CPython before 3.11.8 fails when two threads parse at once (SystemError: AST constructor …).
        for planned in plan.nodes:
            if planned.action != "hit":
                code_digest(planned.node.stage)

    @property
    def keeping(self) -> bool:
        """Whether a stage is at work here that has taken a step, which its next restart point will hold."""
        return bool(self._stepping)

    def make(
        self, node_id: str, *, trackers: tuple[Tracker, ...] = (), extra: Mapping[str, Any] | None = None
    ) -> Outcome:
        """Return a node's outcome; its inputs must have been made by this session.

        `trackers` receive the stage's reports as the display does; `extra` joins the provenance.
        """
        planned = self.plan.by_id[node_id]
        if planned.action == "hit" and planned.record is not None:
            outcome = Outcome(planned.record, cached=True)
        else:
            job = self.job(planned.node)
            if planned.key is not None:
                refuse_other_key(planned.key, job.key, node_id)
            outcome = self._run_on_sound_inputs(job, trackers, extra or {})
        self.adopt(node_id, outcome, extra)
        return outcome

    def adopt(self, node_id: str, outcome: Outcome, extra: Mapping[str, Any] | None = None) -> None:
        """Take over a node's outcome, no matter where it was made; `extra` as in `make`."""
        self.records[node_id] = outcome.record
        if outcome.cached:
            self._tell_cached(node_id, outcome.record, (extra or {}).get("prefect", {}))
        else:
            self.executed.append(node_id)
            self.display.progress.finished(node_id, f"done   {outcome.record.digest[:12]}")
        if notes := _notes(outcome.record.metrics):  # at once, so that no other node comes between them
            self.display.progress.say("\n".join(f"{node_id:<24} {note}" for note in notes))

    def results(self) -> list[Ref]:
        """Return the records that nothing else in the plan was made from, as far as they are known."""
        inputs = {i for planned in self.plan.nodes for i in dag.input_ids(planned.node)}
        last = [p.node.id for p in self.plan.nodes if p.node.id not in inputs]
        return [(r.stage, r.key) for node_id in last if (r := self.records.get(node_id))]

    def job(self, node: Node) -> Job:
        """Return the job of a node from the records of its inputs; what it makes or finds is held."""
        records = self.records
        payload = payload_of(node, {i: records[i].digest for i in dag.input_ids(node)})
        key = fingerprint(payload)
        self._hold.add([(node.stage.name, key)])
        lineage = set[str]()
        if node.stage.wants_lineage:
            lineage = dag.ancestors([p.node for p in self.plan.nodes], [node.id]) - {node.id}
        return Job(
            node=node,
            key=key,
            payload=payload,
            inputs={
                name: records[value] if isinstance(value, str) else tuple(records[i] for i in value)
                for name, value in node.inputs.items()
            },
            lineage={i: records[i] for i in sorted(lineage)},
            force=node.stage.name in self._force,
        )

    def _run_on_sound_inputs(
        self, job: Job, trackers: tuple[Tracker, ...], extra: Mapping[str, Any]
    ) -> Outcome:
        """Run a job; inputs that turn out to be damaged are made again first, and so are theirs."""
        for _ in range(_REPAIRS):
            try:
                return self._run(job, trackers, extra)
            except InputsDamaged as error:
                logger.warning("%s: %s; made again", job.node.id, error)
                for record in error.records.values():
                    self._make_again(record, error, extra)
        return self._run(job, trackers, extra)

    def _make_again(self, record: Record, error: InputsDamaged, extra: Mapping[str, Any]) -> None:
        """Make a damaged artifact again; its record must say the same as before."""
        known = [i for i, r in self.records.items() if (r.stage, r.key) == (record.stage, record.key)]
        if not known:
            raise error
        job = replace(self.job(self.plan.by_id[known[0]].node), force=False)
        refuse_other_key(record.key, job.key, known[0])
        outcome = self._run_on_sound_inputs(job, (), extra)
        self.adopt(known[0], outcome, extra)
        if outcome.record.digest != record.digest:
            raise StageFailed(
                f"{known[0]} was damaged and has been made again, with other bytes: digest"
                f" {outcome.record.digest[:12]} instead of {record.digest[:12]}",
                hint="run again: what is made from it gets a new key, and is made from the new bytes",
            )

    def _run(self, job: Job, trackers: tuple[Tracker, ...], extra: Mapping[str, Any]) -> Outcome:
        """Execute a job, shown while it runs and as it ends."""
        shown = NodeDisplay(self.display, job, self.context.store.url, extra)
        try:
            outcome = self._execute(job, shown, trackers, extra)
        except InputsDamaged:
            shown.ended("waits for an input that is made again", "KILLED")
            raise
        except Interrupted as error:
            shown.ended(f"stopped {error}", "KILLED")
            raise
        except BaseException as error:
            kept = fit_to_keep(error)
            shown.ended(f"failed  {type(error).__name__}: {kept}", "FAILED", {"error": str(kept)[:500]})
            if kept is error:
                raise
            raise kept from None
        shown.made(outcome)
        return outcome

    def _execute(
        self, job: Job, shown: NodeDisplay, trackers: tuple[Tracker, ...], extra: Mapping[str, Any]
    ) -> Outcome:
        """Execute a job alone on the device if it needs that; note whether it has something to keep."""
        node = job.node
        steps = [_Steps(lambda: self._stepping.add(node.id))] if node.stage.continues else []

        def tracker() -> Tracker:
            return MultiTracker([*steps, shown.tracker(*trackers)])

        def provenance() -> dict[str, Any]:
            return {**extra, "recipe": self.plan.recipe.name, "mlflow_run_id": shown.run_id()}

        try:
            with self._device if node.stage.resources == "gpu" else nullcontext():
                return execute(job, self.context, tracker, provenance)
        except Interrupted as error:
            if node.id in self._stepping:
                self.stopped = str(error)
            raise
        finally:
            self._stepping.discard(node.id)

    def _tell_cached(self, node_id: str, record: Record, prefect: Mapping[str, str]) -> None:
        self.display.progress.finished(node_id, f"cached  {record.digest[:12]}")
        if self.display.mlflow:
            made = record.provenance
            tags = run_tags(
                key=record.key,
                digest=record.digest,
                commit=made.get("commit"),
                made_by_run=made.get("mlflow_run_id"),
                **prefect,
            )
            self.display.mlflow.cached(
                node_id,
                record_tags={"nanochat.stage": record.stage, **tags},
                metrics=numbers(record.metrics),
                made=made_earlier(self.plan, self.context.store, node_id, record),
            )


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a stage has to say beside its numbers; a record may be anybody's."""
    notes = metrics.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
