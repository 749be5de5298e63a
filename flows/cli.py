"""The `nanochat` command: verbs that read (`plan`, `why`, `ls`, …) and verbs that act (`run`, `gc`, …).

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage. Each
verb only parses, calls and prints; heavy modules are imported by the verbs that need them. The verbs about a
model (`chat`, `eval`, `import`, `export`) are in `flows.model_commands`.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import model_commands, output, tables
from flows.cli_options import AsJson, Ref, StoreUrl, open_store
from flows.plan import Plan
from flows.settings import Settings
from flows.store import Store
from nanochat import recipes
from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.recipes import overrides
from nanochat.runtime import DEVICES, Runtime

if TYPE_CHECKING:
    from flows.running import RunResult

app = typer.Typer(
    name="nanochat",
    help="One dial and one command from raw text shards to a published chat model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[str, typer.Argument(help="A preset; `nanochat recipes` lists them.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="FIELD=VALUE", help="Change one field by its dotted name; repeatable."
    ),
]
Until = Annotated[str | None, typer.Option(help="Stop after this stage.")]
OptionalRef = Annotated[
    str | None, typer.Argument(help="A stage (its newest record), or stage/<key prefix>.")
]


@app.command("recipes")
def list_recipes(as_json: AsJson = False) -> None:
    """List the presets."""
    rows = [
        {"recipe": name, "depth": recipes.find(name).depth, "about": (make.__doc__ or "").strip()}
        for name, make in recipes.PRESETS.items()
    ]
    if as_json:
        output.show_json(rows)
        return
    output.show(tables.rows_table(rows))


@app.command()
def show(recipe: RecipeName, override: Overrides = None, as_json: AsJson = False) -> None:
    """Show every field of a recipe with its value and meaning, and the numbers that follow from them."""
    from flows.cost_tables import derived_table
    from nanochat.costs.derived import derived
    from nanochat.costs.forecast import forecast

    found = recipes.find(recipe, override or ())
    numbers = derived(found, forecast(found))
    if as_json:
        output.show_json({**found.model_dump(mode="json"), "derived": {d.name: d.value for d in numbers}})
        return
    output.show(tables.fields_table(overrides.field_names(found)))
    output.show("")
    output.show(derived_table(numbers))


@app.command()
def plan(
    recipe: RecipeName,
    override: Overrides = None,
    store: StoreUrl = None,
    until: Until = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Treat this stage as not cached; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would do, stage by stage, why, and what that will cost; run nothing."""
    from flows.cost_tables import PlanCosts
    from flows.plan import make_plan

    settings, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened, until=until, force=tuple(force or ()))
    price = settings.dollars_per_hour
    costs = PlanCosts.of(planned, price)
    if as_json:
        output.show_json({**tables.plan_json(planned, price), "forecast": costs.to_json()})
        return
    output.show(tables.plan_table(planned))
    for part in costs.shown():
        output.show(part)
    output.say(tables.plan_summary(planned, price))


@app.command()
def why(
    recipe: RecipeName,
    stage: Annotated[str, typer.Argument(help="A stage or node of the recipe.")],
    override: Overrides = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say field by field why a stage is cached, runs or waits."""
    from flows.plan import make_plan

    _, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened)
    chosen = [p for p in planned.nodes if stage in (p.node.id, p.node.stage.name)]
    if not chosen:
        names = dict.fromkeys(p.node.stage.name for p in planned.nodes)
        raise ConfigError(f"recipe {recipe!r} has no stage {stage!r}", hint=f"stages: {', '.join(names)}")
    if as_json:
        output.show_json([tables.planned_json(p) for p in chosen])
        return
    for p in chosen:
        output.show(f"{p.node.id}: {tables.WORDS[p.action]}: {p.reason}")
        for change in p.changes:
            output.show(f"  {change}")


@app.command()
def run(
    recipe: RecipeName,
    override: Overrides = None,
    store: StoreUrl = None,
    until: Until = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Run this stage although it is cached; repeatable.")
    ] = None,
    dispatch: Annotated[
        str, typer.Option(help="local: this process; pools: GPU stages on their work pool.")
    ] = "local",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Shards at once (default: as cores).")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Ranks that train together (default: one per GPU, 1 on cpu).")
    ] = None,
    micro_batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows per forward pass (default: what fits).")
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.1, help="Seconds between restart points.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Make everything that is not in the store yet, up to the published chat model."""
    from flows.plan import make_plan
    from flows.running import RunOptions, next_commands, results, unpack
    from flows.running import run as run_plan

    if dispatch not in ("local", "pools"):
        raise ConfigError(f"--dispatch is {dispatch!r}", hint="use local or pools")
    if not re.match(DEVICES, device):
        raise ConfigError(f"--device is {device!r}", hint="use cpu, cuda, or one GPU such as cuda:3")
    settings, opened = open_store(store)
    forced = tuple(force or ())
    planned = make_plan(recipes.find(recipe, override or ()), opened, until=until, force=forced)
    if dispatch == "local":
        _require_device(device, planned)
    runtime = {
        "device": device,
        "threads": threads,
        "workers": workers,
        "processes": processes,
        "micro_batch_rows": micro_batch_rows,
        "checkpoint_every_s": checkpoint_every,
    }
    options = RunOptions(until=until, force=forced, dispatch=dispatch, runtime=runtime)
    done = run_plan(planned, opened, settings, options, output.stderr())
    published = done.records.get("publish")
    folder = unpack(opened, published, settings.home / "models" / planned.recipe.name) if published else None
    _show_run(done, results(opened, done.records), folder, as_json=as_json)
    if published and not as_json:
        if done.executed:
            _exchange(opened, published, planned.recipe.sft.prompts)
        _show_next(next_commands(recipe, override or ()))


def _show_run(done: RunResult, found: Mapping[str, Any], folder: Path | None, *, as_json: bool) -> None:
    if as_json:
        nodes = {
            n: {"key": r.key, "digest": r.digest, "executed": n in done.executed}
            for n, r in done.records.items()
        }
        output.show_json({"nodes": nodes, "results": found, "published": str(folder) if folder else None})
        return
    output.show(tables.run_table(done.records, done.executed))
    if found:
        output.show("")
        output.show(tables.results_table(found))
    if folder:
        output.show(f"\nmodel card: {folder / 'README.md'}")


def _require_device(device: str, planned: Plan) -> None:
    """Raise ConfigError, before the data is made, if stages are to train on a GPU that is not here."""
    trains = any(p.action != "hit" and p.node.stage.resources == "gpu" for p in planned.nodes)
    if trains and device != "cpu":
        from nanochat.train.run import device_of

        device_of(Runtime(device=device))


def _show_next(commands: Sequence[str]) -> None:
    output.show("\nnext:")
    for line in commands:
        output.show(f"  {line}")


@app.command("ls")
def list_records(
    stage: Annotated[str | None, typer.Argument(help="Only this stage.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the records in the store, newest first."""
    _, opened = open_store(store)
    records = opened.records(stage)
    if as_json:
        output.show_json([r.to_json() for r in records])
    elif records:
        output.show(tables.records_table(records))
    else:
        output.say(f"{opened.url} has no records{f' of stage {stage!r}' if stage else ''} yet")


@app.command()
def inspect(ref: Ref, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show a record: what was hashed, files, metrics, provenance, what is in tokens and chats, lineage."""
    from flows.contents import contents
    from flows.lineage import lineage, lineage_tree

    _, opened = open_store(store)
    record = opened.resolve(ref)
    if as_json:
        more = {
            "lineage": [r.to_json() for r in lineage(opened, record)],
            "contents": contents(opened, record),
        }
        output.show_json({**record.to_json(), **more})
        return
    found = contents(opened, record)
    output.show(tables.record_text(record, found))
    for sample in (found or {}).get("conversations", ()):
        output.show(tables.conversation_text(sample))
    output.show("\nlineage")
    output.show(lineage_tree(opened, record))


@app.command()
def verify(ref: OptionalRef = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Read everything in the store again and name what is damaged."""
    _, opened = open_store(store)
    findings = list(opened.verify([ref] if ref else None))
    if as_json:
        output.show_json(
            [{"kind": f.kind, "name": f.name, "problem": f.problem, "used_by": f.used_by} for f in findings]
        )
    else:
        for f in findings:
            users = ", ".join(f"{stage}/{key[:12]}" for stage, key in f.used_by) or "nothing"
            output.show(f"{f.kind} {f.name}: {f.problem} (used by {users})")
        output.say(f"{len(findings)} damaged" if findings else "everything is as recorded")
    if findings:
        raise typer.Exit(1)


@app.command()
def gc(
    store: StoreUrl = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Keep what is younger than this.")] = 168.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    without_roots: Annotated[bool, typer.Option(help="Allow it in a store that names no roots.")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="Keep this record and its lineage for good.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what no finished run and no running stage needs (each run's last result is kept)."""
    _, opened = open_store(store)
    for ref in keep or ():
        record = opened.resolve(ref)
        opened.set_root(f"keep-{record.stage}-{record.key[:12]}", [(record.stage, record.key)])
    report = opened.gc(grace_s=grace_hours * 3600, dry_run=dry_run, without_roots=without_roots)
    if as_json:
        output.show_json(
            {
                "dry_run": dry_run,
                "records": report.records,
                "names": report.names,
                "freed_bytes": report.freed_bytes,
                "kept_records": report.kept_records,
            }
        )
        return
    for stage, key in report.records:
        output.show(f"{stage}/{key[:12]}")
    verb = "would free" if dry_run else "freed"
    output.say(
        f"{verb} {tables.bytes_text(report.freed_bytes)} in {len(report.names)} files"
        f" ({len(report.records)} records); {report.kept_records} records kept"
    )


app.command("eval")(model_commands.evaluate)
app.command("chat")(model_commands.chat)
app.command("import")(model_commands.import_folder)
app.command("export")(model_commands.export)


@app.command()
def report(
    recipe: Annotated[str, typer.Argument(help="The recipe of the run.")] = "toy",
    override: Overrides = None,
    store: StoreUrl = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it (default: below NANOCHAT_HOME).")
    ] = None,
) -> None:
    """Write a page about a run: stages, curves, benchmarks, samples, costs; from records alone."""
    from flows.plan import make_plan
    from flows.report import build_report

    settings, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened)
    records = {p.node.id: p.record for p in planned.nodes if p.record}
    if not records:
        raise NanochatError(
            f"no stage of recipe {recipe!r} is in {opened.url}", hint=f"run it: nanochat run {recipe}"
        )
    target = out or settings.home / "reports" / f"{planned.recipe.name}.html"

    def read(record: Any, path: str) -> bytes:
        files = {f.path: f for f in (*record.files, *record.attachments)}
        return opened.read_bytes(files[path])

    output.show(str(build_report(records, read, target)))


@app.command()
def ui() -> None:
    """Open the Prefect and MLflow windows on this machine until Ctrl-C."""
    from flows.windows import ui as open_windows

    settings = Settings.from_environment()
    output.say("starting the Prefect and MLflow servers…")
    with open_windows(settings.home, settings.mlflow_uri) as (prefect_url, mlflow_url):
        output.show(f"Prefect  {prefect_url}\nMLflow   {mlflow_url}")
        output.say("Ctrl-C ends both; runs started meanwhile show up here")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            output.say("closing")


_GO_ON = "what was finished is kept; the same command goes on from there"


def main() -> None:
    """Run the command line; turn our errors into a message, a hint and an exit code."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        app()
    except Interrupted as error:
        output.fail(f"interrupted: {error}", _GO_ON)
    except ConfigError as error:
        output.fail(str(error), error.hint, code=2)
    except NanochatError as error:
        output.fail(str(error), error.hint)
    except KeyboardInterrupt:
        output.fail("interrupted", _GO_ON)


def _exchange(store: Store, published: Any, prompts: tuple[str, ...]) -> None:
    from flows.models import open_engine
    from nanochat.chat import terminal

    engine = open_engine(store, f"{published.stage}/{published.key}")
    for prompt in prompts:
        reply = terminal.answer(engine, prompt, terminal.ChatSettings(temperature=0.0, max_new_tokens=64))
        output.show(f"\nyou       {prompt}\nnanochat  {reply}")
