"""The Prefect flows that deployments point to: the whole pipeline, and one stage for a GPU work pool.

Parameters are typed, so that the server checks them and the UI shows a form. The flows only open what they
need and hand over to the engine; planning happens once, in the pipeline flow, and a worker that computes
another key than the planned one refuses.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, Field
from rich.console import Console

from flows.display.progress import Progress
from flows.display.run_display import RunDisplay, tracked_in_mlflow
from flows.plan import Plan, make_plan
from flows.run.execute import ExecutionContext, refuse_other_key
from flows.run.prefect_engine import current_caller, flow_run_id, make_here, run_session
from flows.run.session import Session
from flows.settings import Settings
from flows.store import Store
from nanochat.config import Recipe
from nanochat.recipes import small
from nanochat.runtime import DEVICES, Runtime

# How many nodes run side by side is decided by the engine; each has a thread for as long as it runs.
_ON_THREADS: Any = ThreadPoolTaskRunner()


class RuntimeParameters(BaseModel):
    """Where and how fast; nothing here changes what is produced."""

    device: str = Field(default="cpu", pattern=DEVICES, description="cpu, cuda, or one GPU such as cuda:3")
    threads: int | None = Field(default=None, gt=0, description="CPU threads; empty: all cores")
    workers: int | None = Field(default=None, gt=0, description="shards handled at once; empty: as cores")
    micro_batch_rows: int | None = Field(default=None, gt=0, description="rows per forward pass")
    processes: int | None = Field(
        default=None, gt=0, description="ranks that train together; empty: one per GPU of device cuda, else 1"
    )
    restart_point_every_s: float = Field(default=30.0, gt=0, description="seconds between restart points")
    retries: int = Field(default=2, ge=0, description="further tries of a stage after a passing fault")
    retry_delay_s: float = Field(default=5.0, ge=0)

    def to_runtime(self, stop: threading.Event) -> Runtime:
        """Return the settings as stage functions take them; `stop` ends the run early."""
        given = self.model_dump(exclude={"processes", "retries", "retry_delay_s"})
        processes = self.processes or (_gpus() if self.device == "cuda" else 1)
        return Runtime(**{k: v for k, v in given.items() if v is not None}, processes=processes, stop=stop)


def _gpus() -> int:
    import torch

    return max(torch.cuda.device_count(), 1)


@flow(name="nanochat", persist_result=False, task_runner=_ON_THREADS)
def pipeline(
    recipe: Recipe = small.toy(),  # noqa: B008 - frozen data, and what the form begins with
    store: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
    dispatch: Literal["local", "pools"] = "local",
    runtime: RuntimeParameters = RuntimeParameters(),  # noqa: B008
) -> dict[str, str]:
    """Run a recipe from text shards to a published chat model; return each node's digest."""
    settings = Settings.from_environment(store=store)
    opened = Store.open(settings.store_url)
    plan = make_plan(recipe, opened, until=until, force=force)
    with _display(plan, settings) as display:
        session = Session(plan, _context(opened, settings, runtime, display), display, force=force)
        if caller := current_caller.get():
            caller.session = session
        run_session(
            session,
            dispatch=dispatch,
            retries=runtime.retries,
            retry_delay_s=runtime.retry_delay_s,
            pool_runtime=runtime.model_dump(),
        )
    return {node: record.digest for node, record in session.records.items()}


@flow(name="nanochat-stage", persist_result=False)
def stage(
    recipe: Recipe,
    node_id: str,
    key: str,
    store: str | None = None,
    force: bool = False,
    runtime: RuntimeParameters = RuntimeParameters(),  # noqa: B008
    mlflow_parent: str | None = None,
) -> str:
    """Make one node of a pipeline that was planned elsewhere; refuse if this worker's key differs.

    `mlflow_parent` is the pipeline's run in the MLflow that both write to.
    """
    settings = Settings.from_environment(store=store)
    opened = Store.open(settings.store_url)
    name = node_id.partition("/")[0]
    plan = make_plan(recipe, opened, until=name, force=(name,) if force else ())
    with _display(plan, settings, mlflow_parent) as display:
        session = Session(
            plan, _context(opened, settings, runtime, display), display, force=(name,) if force else ()
        )
        for planned in plan.nodes:
            if planned.record is not None:
                session.records[planned.node.id] = planned.record
        refuse_other_key(key, session.job(plan.by_id[node_id].node).key, node_id)
        return make_here(session, node_id).record.digest


def _context(
    store: Store, settings: Settings, runtime: RuntimeParameters, display: RunDisplay
) -> ExecutionContext:
    return ExecutionContext(
        store=store,
        scratch=settings.scratch,
        runtime=runtime.to_runtime(display.stop),
        dollars_per_hour=settings.dollars_per_hour,
    )


@contextmanager
def _display(plan: Plan, settings: Settings, mlflow_parent: str | None = None) -> Iterator[RunDisplay]:
    """Use the caller's progress lines, or plain ones of our own; track the run in MLflow."""
    caller = current_caller.get()
    lent = caller.display if caller else RunDisplay(progress=Progress(Console(file=sys.stderr)))
    with tracked_in_mlflow(plan, settings, flow_run_id(), mlflow_parent) as mlflow:
        yield replace(lent, mlflow=mlflow)
