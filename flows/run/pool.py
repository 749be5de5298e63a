"""GPU stages in their own deployment: handed to a work pool, waited for, gone on with after a crash.

The flow run of a stage that crashed, was killed or preempted, or met a fault that may pass, is followed by
another one: it goes on at the stage's last restart point, on whichever worker takes it. A stage that fails
twice in the same way, or in a way that cannot pass, fails the pipeline with its reason. The record comes back
through the store alone.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.states import Failed

from flows.run.execute import Job, Outcome
from flows.run.flow_runs import FlowRunNow, FlowRuns, as_now, flow_runs, is_away
from flows.run.session import Session
from flows.run.signs_of_life import SignsOfLife
from flows.stage import Stage
from flows.store.leases import current
from nanochat.errors import ConfigError, DataError, Interrupted, StageFailed

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

STAGE_DEPLOYMENT = "nanochat-stage/gpu"
# Names of failed states, by which the pipeline knows what to do; other failures are called Failed.
UNAVAILABLE, REFUSED = "Unavailable", "Refused"

# What differs between two tries that fail in the same way: temporary folders, tokens, the room on a disk.
_OF_ONE_TRY = re.compile(
    r"\b(?:\d+|nanochat-ranks|part)-[a-z0-9_]{8}\b|\b[0-9a-f]{8,}\b|[\d,]+ of [\d,]+ bytes"
)

_LOOK_S = 3.0
_LONGEST_DELAY_S = 300.0
_LEAVE_S = 10.0  # how long a stage that was cancelled may take until the pipeline no longer waits for it


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How stages run on the work pool, and how patiently."""

    runtime: Mapping[str, Any]  # of the stage's flow
    restarts: int = 10
    delay_s: float = 5.0

    def make(self, session: Session, node_id: str) -> Outcome:
        """Return a node's outcome once the pool has made it; raise StageFailed if it cannot."""
        job = session.job(session.plan.by_id[node_id].node)
        store = session.context.store
        known = store.find(job.node.stage.name, job.key)
        if known is None or job.force:
            with flow_runs() as server:
                self._until_made(server, session, job)
        record = store.find(job.node.stage.name, job.key)
        if record is None:
            raise StageFailed(
                f"{node_id} finished in its work pool but left no record in {store.url}",
                hint="workers must reach the same store; a local folder serves only those of this machine",
            )
        return Outcome(record, cached=known is not None and not job.force)

    def _until_made(self, server: FlowRuns, session: Session, job: Job) -> None:
        stop, node_id = session.context.runtime.stop, job.node.id
        points = session.context.store.restart_points(job.node.stage.name, job.key)
        tries = Tries(self.restarts)
        while True:
            life = SignsOfLife(partial(current, session.context.store.storage, job.node.stage.name, job.key))
            run = patiently(self._submission(session, job), stop)
            end = wait_for(server, run, stop, life.lost)
            if end.completed:
                return
            step = points.step()
            if not tries.again(end, step):
                raise StageFailed(
                    f"{node_id} failed in its work pool{tries.how_often}: {end.message or end.state}",
                    hint=f"see flow run {end.page or end.id}",
                )
            delay = min(self.delay_s * 2 ** (tries.count - 1), _LONGEST_DELAY_S)
            where = f"from step {step}" if step >= 0 else "from the beginning"
            session.display.progress.say(
                f"{node_id}: {end.message or end.state}; goes on {where} in {delay:.0f} s"
            )
            if stop.wait(delay):
                session.context.runtime.raise_if_stopped()

    def _submission(self, session: Session, job: Job) -> Callable[[], FlowRunNow]:
        """Return what creates one flow run, however often it is called."""
        mlflow = session.display.mlflow
        recipe = session.plan.recipe
        once = uuid.uuid4().hex

        def submit() -> FlowRunNow:
            run = run_deployment(
                STAGE_DEPLOYMENT,
                parameters={
                    "recipe": recipe.model_dump(mode="json"),
                    "node_id": job.node.id,
                    "key": job.key,
                    "store": session.context.store.url,
                    "force": job.force,
                    "runtime": dict(self.runtime),
                    "mlflow_parent": mlflow.root_id() if mlflow else None,
                },
                tags=[job.node.id, job.key[:12]],
                flow_run_name=f"{recipe.name} · {job.node.id} · {job.key[:8]}",
                idempotency_key=once,
                timeout=0,
            )
            return as_now(cast(FlowRun, run))

        return submit


@dataclass
class Tries:
    """How the flow runs of one stage have ended, and whether there is to be another."""

    limit: int
    count: int = 0  # since it last got further
    _step: int = -1
    _reason: str | None = None
    _twice: bool = False

    def again(self, end: FlowRunNow, step: int) -> bool:
        """Return whether another run may succeed; `step` is that of the newest restart point."""
        reason = _OF_ONE_TRY.sub("…", end.message) if end.state == "Failed" else None
        self._twice = reason is not None and reason == self._reason
        self._reason = reason
        self.count = 1 if step > self._step else self.count + 1
        self._step = max(step, self._step)
        may_pass = end.kind != "CANCELLED" and end.state != REFUSED and not self._twice
        return may_pass and self.count <= self.limit

    @property
    def how_often(self) -> str:
        """How it failed, for the message of a stage that is given up."""
        if self._twice:
            return " twice in the same way"
        return f" {self.count} times without getting further" if self.count > self.limit > 0 else ""


def failed_state(error: BaseException, stage: Stage) -> State[Any]:
    """Return the state of a stage's flow run that says what became of it, and whether to try again."""
    name = "Failed"
    if stage.retry_after(error):
        name = UNAVAILABLE
    elif isinstance(error, ConfigError | DataError):
        name = REFUSED
    hint = getattr(error, "hint", None)
    message = f"{type(error).__name__}: {error}" + (f" ({hint})" if hint else "")
    return Failed(name=name, message=message)


def wait_for(
    server: FlowRuns, run: FlowRunNow, stop: threading.Event, lost: Callable[[], bool]
) -> FlowRunNow:
    """Return a flow run when it has ended; raise Interrupted, and cancel it, if the pipeline is to stop.

    One whose process is `lost` has crashed, even if nobody has reported it to the server.
    """
    while not run.final:
        if stop.wait(_LOOK_S):
            raise Interrupted(f"the run was asked to stop; {_leave(server, run)}")
        run = patiently(partial(server.now, run.id), stop)
        if run.kind == "RUNNING" and lost():
            why = "its process no longer renews its lease"
            patiently(partial(server.set_crashed, run.id, why), stop)
            run = replace(run, state="Crashed", kind="CRASHED", message=why, final=True)
    return run


def _leave(server: FlowRuns, run: FlowRunNow) -> str:
    """Cancel a flow run and give it time to keep a restart point; return how it stands."""
    deadline = time.monotonic() + _LEAVE_S
    asked = False
    while not run.final and time.monotonic() < deadline:
        try:
            if not asked:
                server.cancel(run.id)
                asked = True
            run = server.now(run.id)
        except Exception as error:
            if not is_away(error):
                return f"{run.name} cannot be cancelled: {error}"
        time.sleep(min(_LOOK_S, 0.5))
    return f"{run.name} is {run.state}"


def patiently(ask: Callable[[], Answer], stop: threading.Event) -> Answer:
    """Ask the server until it answers, however long that takes; raise Interrupted if the run is to stop."""
    away = False
    while True:
        try:
            return ask()
        except Exception as error:
            if not is_away(error):
                raise
            if not away:
                logger.warning("the Prefect server does not answer, still asking: %s", error)
            away = True
        if stop.wait(_LOOK_S):
            raise Interrupted("the run was asked to stop while the Prefect server did not answer")
