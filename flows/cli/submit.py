"""The verb `submit`: starts a run of a deployment on the configured Prefect server, and follows it.

What `run` is in this process, this is elsewhere: the recipe is read and checked here, and everything is made
by the workers. Ending this program ends nothing there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import output
from flows.cli.options import AsJson, Overrides, RecipeName, Until
from flows.settings import checked_store_url
from nanochat import recipes
from nanochat.errors import NanochatError

if TYPE_CHECKING:
    from flows.run.flow_runs import FlowRunNow, FlowRuns

_LOOK_S = 2.0


def submit(
    recipe: RecipeName,
    override: Overrides = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="URL of the store (default: NANOCHAT_STORE of the workers)."),
    ] = None,
    until: Until = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Run this stage even if it is cached; repeatable.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="What GPU stages run on: cpu or cuda (default: the deployment's).")
    ] = None,
    deployment: Annotated[str, typer.Option(help="Flow and name of the deployment.")] = "nanochat/cpu",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run on a Prefect server's workers, and follow it.

    The server is that of PREFECT_API_URL. Ctrl-C ends only the following, not the run.
    """
    from flows.run.flow_runs import flow_runs, in_words

    named = recipes.find(recipe, override or ()).name
    parameters = {
        "recipe": recipe,
        "overrides": list(override or ()),
        "store": checked_store_url("--store", store),
        "until": until,
        "force": list(force or ()),
        "runtime": {"device": device} if device else None,
    }
    with in_words(), flow_runs() as server:
        try:
            run = server.create(deployment, named, {k: v for k, v in parameters.items() if v})
        except Exception as error:
            _raise_unless_away(error)
            raise NanochatError(
                f"the Prefect server does not answer: {error}", hint="see whether PREFECT_API_URL names one"
            ) from error
        output.say(f"{run.name}: flow run {run.id}\n{run.page or ''}".rstrip())
        if not detach:
            run = _followed(server, run)
    _show(run, as_json=as_json)
    if run.final and not run.completed:
        raise typer.Exit(1)


def _followed(server: FlowRuns, run: FlowRunNow) -> FlowRunNow:
    """Print what changes until the run has ended; return how it did."""
    try:
        for now, news in _news(server, run):
            run = now
            for line in news:
                output.say(line)
    except KeyboardInterrupt:
        output.say(f"{run.name} goes on; to end it: prefect flow-run cancel {run.id}")
        raise typer.Exit(1) from None
    return run


def _news(server: FlowRuns, run: FlowRunNow) -> Iterator[tuple[FlowRunNow, list[str]]]:
    """Yield the run and what has changed since the last look, until it has ended, however long that takes."""
    shown, tasks, answers = "", dict[str, str](), True
    while True:
        try:
            run = server.now(run.id)
            found = server.tasks(run.id)
            news = [] if answers else ["the Prefect server answers again"]
            answers = True
        except Exception as error:
            _raise_unless_away(error)
            found, news = tasks, ["the Prefect server does not answer; still asking"] if answers else []
            answers = False
        if run.state != shown:
            news.append(f"{run.name}: {run.state}")
        news += _changed(tasks, found)
        shown, tasks = run.state, found
        yield run, news
        if run.final:
            return
        time.sleep(_LOOK_S)


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"  {name:<28}{state}" for name, state in now.items() if before.get(name) != state]


def _raise_unless_away(error: Exception) -> None:
    from flows.run.flow_runs import is_away

    if not is_away(error):
        raise error


def _show(run: FlowRunNow, *, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"flow_run_id": run.id, "name": run.name, "page": run.page}
        output.show_json({**fields, "state": run.state, "message": run.message})
        return
    output.show(f"{run.name}: {run.state}" + (f": {run.message}" if run.message else ""))
