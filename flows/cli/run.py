"""The verb `run`: makes what is not in the store yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import output, plan_tables, tables
from flows.cli.model_options import SignKey
from flows.cli.options import (
    AllowUnsafeCode,
    AsJson,
    Device,
    Overrides,
    RecipeName,
    StoreUrl,
    Until,
    open_store,
)
from flows.cli.precision import tell_precision
from flows.plan import Plan
from flows.store import Store
from nanochat import recipes
from nanochat.config import EvaluateConfig, Sampling
from nanochat.data.chat.task_table import TASKS
from nanochat.errors import ConfigError, DataError
from nanochat.publish.published_scores import published_scores

if TYPE_CHECKING:
    from flows.cli.local_run import RunResult
    from flows.cli.push import Pushed


def run(
    recipe: RecipeName,
    override: Overrides = None,
    store: StoreUrl = None,
    until: Until = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Run this stage even if it is cached; repeatable.")
    ] = None,
    dispatch: Annotated[
        str, typer.Option(help="local: this process; pools: GPU stages on their work pool.")
    ] = "local",
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Shards in parallel (default: one per core).")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Ranks that work together (default: one per GPU, 1 on cpu).")
    ] = None,
    micro_batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows per forward pass (default: what fits).")
    ] = None,
    restart_point_every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between restart points.")
    ] = 30.0,
    allow_unsafe_code: AllowUnsafeCode = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Push the published model to the hub at the end; a page that is not there is made, private.",
        ),
    ] = None,
    sign: SignKey = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --push sends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make what is missing, up to the published chat model.

    What the store has is not made again. After Ctrl-C or a crash, the same command continues.
    """
    from flows.cli.local_run import RunOptions, next_commands, run_and_read
    from flows.cli.push_after import Pushing
    from flows.cli.unpacked import require_ours
    from flows.plan import make_plan

    _refuse_unknown(dispatch)
    settings, opened = open_store(store)
    forced = tuple(force or ())
    overrides = [*(override or ()), *(["evaluate.allow_unsafe_code=true"] if allow_unsafe_code else ())]
    planned = make_plan(recipes.find(recipe, overrides), opened, until=until, force=forced)
    pushing = Pushing.of(push, sign, planned, yes=yes)
    _say_before(planned, device if dispatch == "local" else None)
    runtime = {
        "device": device,
        "threads": threads,
        "workers": workers,
        "processes": processes,
        "micro_batch_rows": micro_batch_rows,
        "restart_point_every_s": restart_point_every,
    }
    folder = settings.home / "models" / planned.recipe.name
    if "publish" in planned.by_id:
        require_ours(opened, folder)  # before hours of work
    options = RunOptions(until=until, force=forced, dispatch=dispatch, runtime=runtime)
    done, unpacked, found = run_and_read(planned, opened, settings, options, output.stderr(), folder)
    published = done.records.get("publish")
    send = partial(pushing.push, opened, settings, published) if pushing and published else None
    _show_run(done, found, unpacked, send, as_json=as_json)
    if published and not as_json:
        if done.executed:
            last_training = list(planned.recipe.training.values())[-1]
            _exchange(opened, published, last_training.prompts)
        _show_next(next_commands(recipe, overrides, store))


def _say_before(planned: Plan, device: str | None) -> None:
    """Print what to know before hours of work; `device` is this machine's, where it does that work."""
    if device:
        _require_device(device, planned)
        _require_jail(planned)
    for line in plan_tables.text_lines(planned):
        output.say(line)
    output.warn(planned.warnings)
    if device == "cpu":
        tell_precision(planned)


def _refuse_unknown(dispatch: str) -> None:
    if dispatch not in ("local", "pools"):
        raise ConfigError(f"--dispatch is {dispatch!r}", hint="use local or pools")


def _show_run(
    done: RunResult,
    found: Mapping[str, Any],
    folder: Path | None,
    push: Callable[[], Pushed] | None,
    *,
    as_json: bool,
) -> None:
    """Print what a run has made, and then push it, which may fail."""
    if as_json:
        nodes = {
            n: {"key": r.key, "digest": r.digest, "executed": n in done.executed}
            for n, r in done.records.items()
        }
        made = {"nodes": nodes, "results": found, "published": str(folder) if folder else None}
        output.show_json(made | ({"pushed": asdict(push())} if push else {}))
        return
    output.show(tables.run_table(done.records, done.executed))
    if found:
        published = published_scores(record.to_json() for record in done.records.values())
        output.show("")
        output.show(tables.results_table(found, published))
        for one in published:
            output.show(f"{one.title}: {one.source}")
    if folder:
        output.show(f"\nmodel card: {folder / 'README.md'}")
    if push:
        pushed = push()
        output.show(f"{pushed.page}: {pushed.text()}")


def _require_device(device: str, planned: Plan) -> None:
    """Raise ConfigError, before any data is made, if stages are to train on a GPU that is missing."""
    trains = any(p.action != "hit" and p.node.stage.resources == "gpu" for p in planned.nodes)
    if trains and device != "cpu":
        from nanochat.model.device import device_of

        device_of(device)


def _require_jail(planned: Plan) -> None:
    """Raise JailError, before hours of training, if programs are to be judged that cannot be jailed here."""
    from nanochat.evals.jail.levels import strongest

    for config in (p.node.config for p in planned.nodes if p.action != "hit"):
        if isinstance(config, EvaluateConfig) and any(
            TASKS[name].form == "functions" for name in config.chat_tasks if name in TASKS
        ):
            strongest(allow_unsafe_code=config.allow_unsafe_code)


def _show_next(commands: Sequence[str]) -> None:
    output.show("\nnext:")
    for line in commands:
        output.show(f"  {line}")


def _exchange(store: Store, published: Any, prompts: tuple[str, ...]) -> None:
    from flows.models.find import open_engine
    from nanochat.chat.conversation import answer

    engine = open_engine(store, f"{published.stage}/{published.key}")
    for prompt in prompts:
        try:
            reply = answer(engine, prompt, Sampling(temperature=0.0, max_new_tokens=64))
        except DataError as error:  # such as a prompt that a tiny context cannot hold
            output.say(f"not asked: {prompt!r}: {error}")
            continue
        output.show(f"\nyou       {prompt}\nnanochat  {reply}")
