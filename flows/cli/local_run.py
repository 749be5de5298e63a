"""`nanochat run` around the Prefect flow: shows progress, turns signals into a stop, gathers results.

The flow runs on its own thread, so that Ctrl-C and SIGTERM reach this process's main thread, which asks
the stages to save a restart point and stop (`flows.cli.stopping`). A run with nothing to do does not start
Prefect unless a server is configured, nor MLflow unless its address is.
"""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows.cli import output
from flows.cli.stopping import stopping_on_signals
from flows.cli.unpacked import unpack
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay, tracked_in_mlflow
from flows.plan import Plan, make_plan
from flows.proxies import require_usable_proxies
from flows.run.execute import ExecutionContext
from flows.run.scratch import drop_own_folders
from flows.run.session import Session, begin
from flows.settings import Settings
from flows.stages import EVALUATIONS, PUBLISH, SFT
from flows.store import Record, Store
from nanochat.errors import Damaged
from nanochat.evals.results import parse_results
from nanochat.runtime import Runtime

if TYPE_CHECKING:
    from flows.run.prefect_engine import Caller

logger = logging.getLogger(__name__)
_REPAIRS = 3  # times that what is shown is made again; a disk that damages more is not worked around


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
    """Make everything in the plan."""
    with Progress(console) as progress:
        looked_up = not settings.prefect_api_url and _look_up(plan, store, settings, options, progress)
        result = looked_up or _run_flow(plan, store, settings, options, progress)
    in_order = {planned.node.id: result.records[planned.node.id] for planned in plan.nodes}
    return RunResult(in_order, result.executed)  # as planned, not as they happened to end


def run_and_read(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, console: Console, folder: Path
) -> tuple[RunResult, Path | None, dict[str, Any]]:
    """Make everything in the plan, then read as `read_results`; what turns out damaged is made again."""
    done = run_plan(plan, store, settings, options, console)
    for _ in range(_REPAIRS):
        try:
            return done, *read_results(store, done, folder)
        except Damaged as error:  # in what was cached: it is a miss now
            output.say(f"{error}; it is made again")
        plan = make_plan(plan.recipe, store, until=options.until)
        again = run_plan(plan, store, settings, replace(options, force=()), console)
        done = RunResult(again.records, tuple(dict.fromkeys((*done.executed, *again.executed))))
    return done, *read_results(store, done, folder)


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
                source = f"{record.stage}/{record.key[:12]}"
                found[models[record.stage]] = parse_results(store.read_bytes(file), source)
    return found


def _look_up(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, progress: Progress
) -> RunResult | None:
    """Return the result of a plan in which everything is cached, without Prefect; None if it is not."""
    if not plan.all_cached:
        return None
    context = ExecutionContext(store=store, scratch=settings.scratch, runtime=Runtime())
    with tracked_in_mlflow(plan, settings, progress) if settings.mlflow_asked else nullcontext() as mlflow:
        display = RunDisplay(progress=progress, mlflow=mlflow)
        with begin(plan, context, display, force=options.force) as session:
            if not session.plan.all_cached:  # some of it was collected since it was planned
                return None
            for planned in plan.nodes:
                session.make(planned.node.id)
    return RunResult(session.records, ())


def _run_flow(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, progress: Progress
) -> RunResult:
    stop = threading.Event()
    call: Caller | None = None

    def session() -> Session | None:
        return call.session if call else None

    def keeping() -> bool:
        return (now := session()) is not None and now.keeping

    def leave() -> None:
        _leave(settings.scratch, session())

    with stopping_on_signals(stop, progress.say, keeping, leave), _prefect(settings, progress):
        from flows.pipeline import pipeline
        from flows.run.parameters import RuntimeParameters
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
    require_usable_proxies(os.environ)
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


def _leave(scratch: Path, session: Session | None) -> None:
    """End this process at once, whatever still goes on in it; say why unless that is said already."""
    drop_own_folders(scratch)
    if not output.failed.is_set():
        output.say(f"error: interrupted: {(session and session.stopped) or 'the run was asked to stop'}")
        output.say(f"hint: {output.GO_ON}")
    os._exit(1)


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


def next_commands(recipe: str, overrides: Sequence[str], store: str | None = None) -> list[str]:
    """Return what to try after a run of this recipe on this store, as lines that a shell can read."""
    options = [word for override in overrides for word in ("-o", override)]
    at_store = ["--store", store] if store else []
    commands = {
        shlex.join(["nanochat", *words, *at_store]): what
        for words, what in (
            (["chat"], "talk with the model"),
            (["run", recipe, *options], "run again: every stage is cached"),
            (["plan", recipe, *options, "-o", f"{SFT.name}.epochs=2"], "see what one change would run"),
            (["report", recipe, *options], "curves, samples and costs of this run"),
        )
    }
    commands["nanochat ui"] = "browse runs in Prefect and MLflow"
    commands[shlex.join(["nanochat", "serve", *at_store])] = "talk with it in a browser or over HTTP"
    width = max(len(command) for command in commands if len(command) <= 60)
    return [f"{command:<{width}}  {what}" for command, what in commands.items()]
