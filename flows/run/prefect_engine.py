"""A session as Prefect tasks: one task per node, lineage edges, `Cached` states, retries.

Prefect schedules and shows; what is cached is decided by our store alone (`NO_CACHE`), and a hit returns a
completed state named `Cached`. Tasks hand each other small summaries, never artifacts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.utilities.urls import url_for

from flows.display.run_display import RunDisplay
from flows.plan import Plan
from flows.run.execute import Outcome
from flows.run.flow_runs import flow_runs
from flows.run.headline import brief
from flows.run.pool import Pool
from flows.run.progress_artifact import ProgressArtifact
from flows.run.scheduler import Scheduler
from flows.run.session import Session
from flows.settings import Settings
from flows.stage import Stage
from flows.store import Store
from nanochat.credentials import without_credentials
from nanochat.errors import Interrupted, NanochatError, StageFailed, behind
from nanochat.system_errors import full_disk, words

logger = logging.getLogger(__name__)

_KEY_IN_NAME = 8


@dataclass
class Caller:
    """A program that runs the flow in its own process: passes in what it has, and can read the session.

    The flow makes the plan that it has shown, in the store that it has opened.
    """

    plan: Plan
    store: Store
    settings: Settings
    display: RunDisplay
    session: Session | None = None

    def run(self, flow: Callable[..., Any], **parameters: Any) -> Any:
        """Call a flow, which then finds this caller; its parameters are what a retry elsewhere plans from."""
        token = current_caller.set(self)
        try:
            return flow(recipe=self.plan.recipe, store=self.settings.store_url, **parameters)
        except CancelledRun as error:
            raise Interrupted(f"its flow run was cancelled: {error}") from error
        except Exception as error:
            reason = self._reason(error)
            if reason is None:
                raise
            raise reason from error
        finally:
            current_caller.reset(token)

    def _reason(self, error: Exception) -> NanochatError | None:
        """Return what ended the run where Prefect reports only that it could not record it."""
        for each in behind(error):
            if isinstance(each, NanochatError):
                return each if each is not error else None
        if full := full_disk(self.settings.home):
            return NanochatError(f"Prefect cannot record the run: {full[0]}", hint=full[1])
        return None


# A flow run that a worker starts finds no caller here, and makes its own.
current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)


def run_session(
    session: Session,
    *,
    retries: int = 2,
    retry_delay_s: float = 5.0,
    pool: Pool | None = None,
) -> None:
    """Run every node of a session as Prefect tasks inside the current flow run.

    With a `pool`, GPU stages run in their own deployment.
    Raises StageFailed naming the first stage that failed, Interrupted if the run was asked to stop.
    """
    errors: dict[str, BaseException] = {}
    log = get_run_logger()  # of the flow run, where people look first

    @task(
        cache_policy=NO_CACHE,
        persist_result=False,
        task_run_name="{node_id}",
        retries=retries,
        retry_delay_seconds=[retry_delay_s * 2**i for i in range(retries)],
    )
    def run_stage(node_id: str, inputs: Mapping[str, Any]) -> Any:
        log.info("%s begins", node_id)
        try:
            if pool and _goes_to_pool(session, node_id):
                outcome = pool.make(session, node_id)
                session.adopt(node_id, outcome, {"prefect": _prefect_ids()})
            else:
                outcome = make_here(session, node_id)
        except BaseException as error:
            errors[node_id] = error
            log.info("%s ended without a result: %s", node_id, type(error).__name__)
            raise
        errors.pop(node_id, None)
        log.info("%s %s", node_id, _end_text(outcome))
        return _as_state(node_id, outcome)

    futures = _submit_all(session, run_stage)
    _raise_first(errors, (session.context.scratch,))
    for node_id, future in futures.items():
        if node_id not in session.records:  # Prefect gave up on it before or after our part
            raise StageFailed(f"stage {node_id} was not made: {future.state}", hint="run it again")


def _submit_all(session: Session, run_stage: Task[..., Any]) -> dict[str, PrefectFuture[Any]]:
    """Submit each node once its inputs are done and its lane has room; return all futures when all are done.

    Prefect's own waiting would keep a thread for each task that waits, and start tasks in the order of
    their submission: every download before the first stage that needs only some of them.
    """
    scheduler = Scheduler([p.node for p in session.plan.nodes], session.context.runtime.workers)
    futures: dict[str, PrefectFuture[Any]] = {}
    finished = SimpleQueue[str]()
    while not scheduler.all_done:
        for node in scheduler.take_ready():
            upstream = {
                name: futures[value] if isinstance(value, str) else [futures[i] for i in value]
                for name, value in node.inputs.items()
            }
            as_declared = run_stage.with_options(
                name=node.stage.name, retry_condition_fn=partial(_may_pass, node.stage)
            )
            future = as_declared.submit(node.id, upstream)
            futures[node.id] = future
            future.add_done_callback(partial(_tell, finished, node.id))
        scheduler.done(finished.get())
    return futures


def _tell(finished: SimpleQueue[str], node_id: str, _: PrefectFuture[Any]) -> None:
    finished.put(node_id)


def _goes_to_pool(session: Session, node_id: str) -> bool:
    planned = session.plan.by_id[node_id]
    return planned.node.stage.resources == "gpu" and planned.action != "hit"


def make_here(session: Session, node_id: str) -> Outcome:
    """Make a node in this process, reporting its progress to Prefect."""
    tracker = ProgressArtifact(node_id, _mlflow_link(session, node_id))
    return session.make(node_id, trackers=(tracker,), extra={"prefect": _prefect_ids()})


def _as_state(node_id: str, outcome: Outcome) -> State[dict[str, str]] | dict[str, str]:
    record = outcome.record
    # A fresh object each time: Prefect draws lineage by the identity of what tasks return.
    summary = {"node": node_id, "stage": record.stage, "key": record.key, "digest": record.digest}
    if not outcome.cached:
        return summary
    return Completed(name="Cached", message=f"{record.stage}/{record.key[:12]}", data=summary)


def _end_text(outcome: Outcome) -> str:
    """Return how a node ended, for the log of the flow run."""
    record, seconds = outcome.record, outcome.record.provenance.get("seconds")
    took = f" in {seconds:.1f} s" if seconds is not None and not outcome.cached else ""
    numbers = brief(record.metrics)
    how = "was made before" if outcome.cached else "is made"
    return f"{how}{took}: {record.digest[:12]}{f', {numbers}' if numbers else ''}"


def _may_pass(stage: Stage, _task: Any, _run: Any, state: State[Any]) -> bool:
    """Return whether another try may succeed where the last one failed."""
    try:
        state.result()
    except BaseException as error:
        return stage.retry_after(error)
    return False


def _raise_first(errors: Mapping[str, BaseException], places: Sequence[Path] = ()) -> None:
    for error in errors.values():
        if isinstance(error, Interrupted):
            raise error
    for node_id, error in errors.items():
        what = f"stage {node_id} failed"
        if isinstance(error, OSError):  # such as a full scratch disk
            problem, hint = words(error, places)
        else:
            problem, hint = str(error), getattr(error, "hint", None)
        raise StageFailed(f"{what}: {problem}", hint=hint) from error


def flow_run_id() -> str:
    """Return the id of the current flow run, or an empty string outside of one."""
    flow = FlowRunContext.get()
    return str(flow.flow_run.id) if flow and flow.flow_run else ""


def name_flow_run(plan: Plan) -> None:
    """Call the current flow run by its recipe and the key of its plan."""
    recipe = plan.recipe.name
    try:
        with flow_runs() as server:
            server.name(flow_run_id(), f"{recipe} · {plan.key[:_KEY_IN_NAME]}", instead_of=(recipe,))
    except Exception as error:  # the name is for people; the run goes on without it
        logger.warning("the flow run keeps the name it has: %s", error)


def _prefect_ids() -> dict[str, str]:
    """Return what leads from a record or an MLflow run back to Prefect: ids and the page of this run."""
    ids = {"flow_run_id": flow_run_id()}
    if run := TaskRunContext.get():
        ids["task_run_id"] = str(run.task_run.id)
    kind = "task-run" if "task_run_id" in ids else "flow-run"
    page = url_for(kind, obj_id=ids.get("task_run_id", ids["flow_run_id"]))
    return {**ids, "prefect_url": without_credentials(page)} if page else ids


def _mlflow_link(session: Session, node_id: str) -> Callable[[], str | None]:
    mlflow = session.display.mlflow
    return lambda: mlflow.url(node_id) if mlflow else None
