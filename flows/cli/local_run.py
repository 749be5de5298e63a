"""`nanochat run` around the Prefect flow: shows progress, turns signals into a stop, gathers results.

The flow runs on its own thread, so that Ctrl-C and SIGTERM reach this process's main thread, which asks
the stages to save a restart point and stop. A run with nothing to do does not start Prefect unless a server
is configured, nor MLflow unless its address is.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from flows.display.progress import Progress
from flows.display.run_display import RunDisplay, tracked_in_mlflow
from flows.plan import Plan
from flows.run.execute import ExecutionContext
from flows.run.session import Session
from flows.settings import Settings
from flows.stages import EVALUATIONS, PUBLISH, SFT
from flows.store import Record, Store
from nanochat.runtime import Runtime

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options from the command line on how to run."""

    until: str | None = None
    force: tuple[str, ...] = ()
    dispatch: str = "local"
    runtime: Mapping[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What a run returns: each node's record, and which nodes it executed."""

    records: Mapping[str, Record]
    executed: tuple[str, ...]


def run_plan(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, console: Console
) -> RunResult:
    """Make everything in the plan and name the result as a root of the store."""
    with Progress(console) as progress:
        if plan.all_cached and not settings.prefect_api_url:
            result = _look_up(plan, store, settings, progress)
        else:
            result = _run_flow(plan, store, settings, options, progress)
    last = plan.nodes[-1].node
    record = result.records[last.id]
    store.set_root(f"{plan.recipe.name}-{last.stage.name}", [(record.stage, record.key)])
    in_order = {planned.node.id: result.records[planned.node.id] for planned in plan.nodes}
    return RunResult(in_order, result.executed)  # as planned, not as they happened to end


def read_results(store: Store, done: RunResult, folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Fill `folder` with the published model, if there is one; return it and the results of all evaluations.

    Raises:
        Damaged: the store has lost some of it, which the next run makes again.
    """
    published = done.records.get(PUBLISH.name)
    return unpack(store, published, folder) if published else None, results(store, done.records)


def results(store: Store, records: Mapping[str, Record]) -> dict[str, Any]:
    """Return the `results.json` of each evaluation among the records, by model."""
    models = {stage.name: model for model, stage in EVALUATIONS.items()}
    found = {}
    for record in records.values():
        for file in record.files:
            if record.stage in models and file.path == "results.json":
                found[models[record.stage]] = json.loads(store.read_bytes(file))
    return found


def unpack(store: Store, record: Record, folder: Path) -> Path:
    """Fill a folder with links to an artifact and its attachments, replacing links from an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
    return store.fetch(record, folder, attachments=True)


def _look_up(plan: Plan, store: Store, settings: Settings, progress: Progress) -> RunResult:
    context = ExecutionContext(store=store, scratch=settings.scratch, runtime=Runtime())
    with tracked_in_mlflow(plan, settings) if settings.mlflow_asked else nullcontext() as mlflow:
        session = Session(plan, context, RunDisplay(progress=progress, mlflow=mlflow))
        for planned in plan.nodes:
            session.make(planned.node.id)
    return RunResult(session.records, ())


def _run_flow(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, progress: Progress
) -> RunResult:
    stop = threading.Event()
    with _prefect(settings, progress), _signals(stop, progress):
        from flows.pipeline import RuntimeParameters, pipeline
        from flows.run.prefect_engine import Caller

        call = Caller(plan, store, settings, RunDisplay(progress=progress, stop=stop))
        _on_thread(
            lambda: call.run(
                pipeline,
                until=options.until,
                force=options.force,
                dispatch=options.dispatch,
                runtime=RuntimeParameters(**options.runtime),
            )
        )
    assert call.session is not None
    return RunResult(call.session.records, tuple(call.session.executed))


@contextmanager
def _prefect(settings: Settings, progress: Progress) -> Iterator[None]:
    """Point Prefect at the configured server, or at a local one that lives as long as this run."""
    quiet = {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if settings.prefect_api_url:
        yield
        return
    from flows.display.servers import local_prefect_server

    progress.say("starting a local Prefect server for this run…")
    with local_prefect_server(settings.home) as url:
        os.environ["PREFECT_API_URL"] = url
        try:
            yield
        finally:
            del os.environ["PREFECT_API_URL"]


@contextmanager
def _signals(stop: threading.Event, progress: Progress) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a stop, the second into an immediate exit."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()
        progress.say("stopping: running stages save a restart point (again to exit immediately)")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_thread(work: Any) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, name="pipeline")
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # short waits, so that signals are handled
    if errors:
        raise errors[0]


def next_commands(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Return what to try after a run."""
    again = " ".join(["nanochat run", recipe, *(f"-o {o}" for o in overrides)])
    commands = {
        "nanochat chat": "talk with the model",
        again: "run again: every stage is cached",
        f"nanochat plan {recipe} -o {SFT.name}.epochs=2": "see what one change would run",
        f"nanochat report {recipe}": "curves, samples and costs of this run",
        "nanochat ui": "browse runs in Prefect and MLflow",
    }
    width = max(len(command) for command in commands if len(command) <= 60)
    return [f"{command:<{width}}  {what}" for command, what in commands.items()]
