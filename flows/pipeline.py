"""The Prefect flows that deployments point to: the whole pipeline, and one stage for a GPU work pool.

Their parameters are those of `flows.run.parameters`, which the server checks. A run is planned once: by the
program in whose process the flow runs, or by the flow itself if a worker started it. The flows only open what
they need and hand over to the engine; a worker that computes a different key than planned refuses. Both end
in order when they are cancelled.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.display.clean import keep_output_clean
from flows.display.console import PrintableConsole
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay, tracked_in_mlflow
from flows.plan import make_plan
from flows.proxies import reach_loopback_directly
from flows.run.cancellation import run_in_order
from flows.run.execute import ExecutionContext, refuse_other_key
from flows.run.parameters import Override, RecipeOrName, RuntimeParameters, StageName, StoreUrl
from flows.run.pool import Pool, failed_state
from flows.run.prefect_engine import (
    Caller,
    current_caller,
    flow_run_id,
    make_here,
    name_flow_run,
    run_session,
)
from flows.run.run_artifacts import show_plan, show_results
from flows.run.session import Session, begin
from flows.settings import Settings
from flows.stages import STAGES
from flows.store import Store
from nanochat import recipes
from nanochat.config import Recipe
from nanochat.errors import Interrupted

# How many nodes run side by side is decided by the engine; each has a thread for as long as it runs.
_ON_THREADS: Any = ThreadPoolTaskRunner()


@flow(name="nanochat", persist_result=False, task_runner=_ON_THREADS)
def pipeline(
    recipe: RecipeOrName = "toy",
    overrides: tuple[Override, ...] = (),
    store: StoreUrl | None = None,
    until: StageName | None = None,
    force: tuple[StageName, ...] = (),
    dispatch: Literal["local", "pools"] = "local",
    runtime: RuntimeParameters = RuntimeParameters(),  # noqa: B008
) -> dict[str, str] | State[Any]:
    """Run a recipe from text shards to a published chat model; return each node's digest."""
    given = current_caller.get()
    stop = given.display.stop if given else threading.Event()

    def make() -> dict[str, str]:
        caller = given or _own_caller(recipes.named(recipe, overrides), store, until, force, stop)
        name_flow_run(caller.plan)
        show_plan(caller.plan)
        with _session(caller, runtime, force) as session:
            delay = runtime.retry_delay_s
            pool = Pool(runtime=runtime.model_dump(), restarts=runtime.restarts, delay_s=delay)
            run_session(
                session,
                retries=runtime.retries,
                retry_delay_s=delay,
                pool=pool if dispatch == "pools" else None,
            )
            show_results(session)
        return {node: record.digest for node, record in session.records.items()}

    return run_in_order(make, stop, flow_run_id(), owns_process=given is None)


@flow(name="nanochat-stage", persist_result=False)
def stage(
    recipe: Recipe,
    node_id: str,
    key: str,
    store: str | None = None,
    force: bool = False,
    runtime: RuntimeParameters = RuntimeParameters(),  # noqa: B008
    mlflow_parent: str | None = None,
) -> str | State[Any]:
    """Make one node of a pipeline that was planned elsewhere; refuse if this worker's key differs.

    `mlflow_parent` is the pipeline's run in the MLflow that both write to. How a failure is called tells
    the pipeline whether to try again.
    """
    kind = STAGES[node_id.partition("/")[0]]
    forced = (kind.name,) if force else ()
    stop = threading.Event()

    def make() -> str:
        caller = _own_caller(recipe, store, kind.name, forced, stop)
        with _session(caller, runtime, forced, mlflow_parent) as session:
            for planned in session.plan.nodes:
                if planned.record is not None:
                    session.records[planned.node.id] = planned.record
            refuse_other_key(key, session.job(session.plan.by_id[node_id].node).key, node_id)
            return make_here(session, node_id).record.digest

    try:
        return run_in_order(make, stop, flow_run_id(), owns_process=True)
    except Interrupted:
        raise
    except Exception as error:
        get_run_logger().error("%s failed", node_id, exc_info=error)
        return failed_state(error, kind)


def _own_caller(
    recipe: Recipe, store: str | None, until: str | None, force: tuple[str, ...], stop: threading.Event
) -> Caller:
    """Plan and open for a flow run that a worker started, with plain progress lines."""
    reach_loopback_directly(os.environ)
    keep_output_clean()
    settings = Settings.from_environment(store=store)
    opened = Store.open(settings.store_url, cache=settings.cache)
    plan = make_plan(recipe, opened, until=until, force=force)
    for warning in plan.warnings:
        get_run_logger().warning("%s", warning)
    display = RunDisplay(progress=Progress(PrintableConsole(file=sys.stderr)), stop=stop)
    return Caller(plan, opened, settings, display)


@contextmanager
def _session(
    caller: Caller, runtime: RuntimeParameters, force: tuple[str, ...], mlflow_parent: str | None = None
) -> Iterator[Session]:
    """Begin a session of what the caller has planned; track it in MLflow."""
    settings = caller.settings
    with tracked_in_mlflow(
        caller.plan, settings, caller.display.progress, flow_run_id(), mlflow_parent
    ) as mlflow:
        display = replace(caller.display, mlflow=mlflow)
        context = ExecutionContext(
            store=caller.store,
            scratch=settings.scratch,
            runtime=runtime.to_runtime(display.stop),
            dollars_per_hour=settings.dollars_per_hour,
        )
        with begin(caller.plan, context, display, force=force) as caller.session:
            yield caller.session
