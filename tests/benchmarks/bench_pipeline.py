"""What the pipeline costs beside the same functions called directly, and what a plan costs by size.

Run with `uv run python tests/benchmarks/bench_pipeline.py`; it is not collected as a test.

Prints the time per executed and per cached stage for a session without Prefect and for the Prefect flow
(against `PREFECT_API_URL`, else a local server of its own), without and with its MLflow run, each
as a ratio to direct calls; and the time of a plan of 240 and 2,400 shards, in an empty and in a full store.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

from rich.console import Console

from flows import dag
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import make_plan
from flows.run.execute import ExecutionContext, run_function
from flows.run.session import begin
from flows.settings import Settings
from flows.stage import Node
from flows.store import Store
from nanochat import recipes
from nanochat.config import Recipe
from nanochat.runtime import Runtime
from tests.benchmarks.measuring import Timing, hardware, measure, print_table, seconds_text
from tests.support.stand_ins import pretend_to_run, with_stand_in_stages


def recipe_of(shards: int) -> Recipe:
    """Return the toy recipe with this many text shards, the validation shard among them."""
    return recipes.find("toy", [f"corpus.train_shards={shards - 1}"])


def call_directly(nodes: Sequence[Node], folder: Path) -> None:
    """Call the function of each node by itself, inputs linked by hand."""
    for node in nodes:
        out = folder / node.id
        out.mkdir(parents=True)
        inputs = {}
        for name, value in node.inputs.items():
            if isinstance(value, str):
                inputs[name] = folder / value
                continue
            inputs[name] = folder / "inputs" / node.id / name
            inputs[name].mkdir(parents=True)
            for n, one in enumerate(value):
                (inputs[name] / f"{n:05d}").symlink_to(folder / one)
        run_function(node.stage.run)(node.config, inputs, out, Runtime(threads=1))


def run_session(recipe: Recipe, store: Path, scratch: Path) -> int:
    """Plan and run a recipe without Prefect; return how many nodes were executed."""
    opened = Store.open(str(store))
    plan = make_plan(recipe, opened)
    context = ExecutionContext(store=opened, scratch=scratch, runtime=Runtime(threads=1))
    with begin(plan, context, RunDisplay(progress=_quiet())) as session:
        for planned in plan.nodes:
            session.make(planned.node.id)
    return len(session.executed)


def run_flow(recipe: Recipe, store: Path) -> int:
    """Run a recipe as the Prefect flow; return how many nodes were executed."""
    from flows.pipeline import RuntimeParameters, pipeline
    from flows.run.prefect_engine import Caller

    settings = Settings.from_environment(store=str(store))
    opened = Store.open(settings.store_url, cache=settings.cache)
    caller = Caller(make_plan(recipe, opened), opened, settings, RunDisplay(progress=_quiet()))
    caller.run(pipeline, runtime=RuntimeParameters(threads=1))
    assert caller.session is not None
    return len(caller.session.executed)


def bench_stages(scratch: Path, shards: int, repeats: int, prefect: bool) -> None:
    """Compare executed and cached stages with direct calls of the same functions."""
    recipe = recipe_of(shards)
    with with_stand_in_stages():
        nodes = dag.build(recipe)
        count = len(nodes)

        def session(n: int) -> None:
            assert run_session(recipe, scratch / f"session{n}", scratch / "work") == count

        def session_again(n: int) -> None:
            assert run_session(recipe, scratch / f"session{n}", scratch / "work") == 0

        def flow(n: int) -> None:
            assert run_flow(recipe, scratch / f"flow{n}") == count

        def flow_again(n: int) -> None:
            assert run_flow(recipe, scratch / f"flow{n}") == 0

        direct = measure(lambda n: call_directly(nodes, scratch / f"direct{n}"), repeats)
        rows = [("direct calls (baseline)", direct)]
        rows.append(("session, executed", measure(session, repeats)))
        rows.append(("session, cached", measure(session_again, repeats)))
        if prefect:
            with _prefect(scratch):
                for n, name in ((0, "Prefect flow"), (repeats, "Prefect flow with MLflow")):
                    with _mlflow_or_not(wanted=n > 0):
                        run_flow(recipe_of(2), scratch / f"warm{n}")
                        executed = measure(lambda i, n=n: flow(n + i), repeats)
                        cached = measure(lambda i, n=n: flow_again(n + i), repeats)
                    rows += [(f"{name}, executed", executed), (f"{name}, cached", cached)]
    print_table(
        f"{count} stages, median of {repeats} runs (least – most)",
        ("per stage", "time", "of direct calls", "beyond them"),
        [_row(name, timing.over(count), direct.over(count)) for name, timing in rows],
    )


def bench_plan(scratch: Path, sizes: Sequence[int], repeats: int) -> None:
    """Show how the cost of a plan grows with the number of shards."""
    timings: dict[str, list[Timing]] = {}
    for shards in sizes:
        url, made = str(scratch / f"store{shards}"), scratch / f"made{shards}"
        recipe = recipe_of(shards)
        changed = recipes.find("toy", [f"corpus.train_shards={shards - 1}", "tokenizer.min_count=3"])
        timings.setdefault("empty store", []).append(_time_plan(recipe, url, repeats))
        made.mkdir()
        with mock.patch("os.fsync"):  # filling is not what is measured
            pretend_to_run(recipe, Store.open(url), made)
        assert make_plan(recipe, Store.open(url)).all_cached
        timings.setdefault("full store, all cached", []).append(_time_plan(recipe, url, repeats))
        timings.setdefault("full store, tokenizer changed", []).append(_time_plan(changed, url, repeats))
    growth = sizes[-1] / sizes[0]
    print_table(
        f"plan, median of {repeats} (least – most); linear is {growth:.1f}x",
        ("plan", *(f"{shards:,} shards" for shards in sizes), "ratio", "CPU alone", "ratio"),
        [
            (
                name,
                *found,
                f"{found[-1].median / found[0].median:.1f}x",
                ", ".join(seconds_text(timing.cpu) for timing in found),
                f"{found[-1].cpu / found[0].cpu:.1f}x",
            )
            for name, found in timings.items()
        ],
    )


def _time_plan(recipe: Recipe, url: str, repeats: int) -> Timing:
    return measure(lambda _: make_plan(recipe, Store.open(url)), repeats)


def _row(name: str, timing: Timing, direct: Timing) -> tuple[str, Timing, str, str]:
    beyond = (timing.median - direct.median) * 1e3
    overhead = f"{beyond:.1f} ms" if beyond > 0 else ""
    return name, timing, f"{timing.median / direct.median:.2f}x", overhead


def _quiet() -> Progress:
    return Progress(Console(stderr=True), quiet=True)


@contextmanager
def _mlflow_or_not(*, wanted: bool) -> Iterator[None]:
    """Leave MLflow out of the flow unless it is wanted."""
    if wanted:
        yield
        return

    with mock.patch("flows.pipeline.tracked_in_mlflow", lambda *_: nullcontext()):
        yield


@contextmanager
def _prefect(scratch: Path) -> Iterator[None]:
    """Point Prefect at the configured server or at one of our own, MLflow at a database of our own."""
    from flows.display.servers import local_prefect_server

    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    own = {"NANOCHAT_HOME": str(scratch / "home"), **quiet}
    with mock.patch.dict(os.environ, own):
        if "PREFECT_API_URL" in os.environ:
            yield
            return
        with local_prefect_server(scratch / "home") as url, mock.patch.dict(os.environ, PREFECT_API_URL=url):
            yield


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage-shards", type=int, default=8, help="shards of the recipe whose stages run")
    parser.add_argument("--shards", type=int, nargs="+", default=[240, 2400], help="sizes to plan")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-prefect", action="store_true", help="leave out the Prefect flow")
    parser.add_argument("--only", choices=("stages", "plan"), help="one half of it")
    options = parser.parse_args()
    print(hardware())
    if options.only != "plan":
        with tempfile.TemporaryDirectory() as scratch:
            bench_stages(Path(scratch), options.stage_shards, options.repeats, not options.no_prefect)
    if options.only != "stages":
        with tempfile.TemporaryDirectory() as scratch:
            bench_plan(Path(scratch), options.shards, options.repeats)


if __name__ == "__main__":
    main()
