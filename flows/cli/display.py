"""The verbs that show runs: `report` and `ui`."""

from __future__ import annotations

import shlex
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import output
from flows.cli.options import Overrides, StoreUrl, open_store
from flows.stages import PUBLISH
from flows.store import Store
from nanochat import recipes
from nanochat.errors import NanochatError, StoreError


def report(
    recipe: Annotated[str, typer.Argument(help="The recipe of the run.")] = "toy",
    override: Overrides = None,
    store: StoreUrl = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it (default: below NANOCHAT_HOME).")
    ] = None,
) -> None:
    """Write one HTML page about a run, from records alone.

    It shows stages, curves, benchmarks, samples and costs.
    """
    from flows.display.report import build_report
    from flows.plan import make_plan

    settings, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened)
    records = {p.node.id: p.record for p in planned.nodes if p.record}
    if not records:
        words = ["nanochat", "run", recipe, *(word for text in override or () for word in ("-o", text))]
        raise NanochatError(
            f"no stage of recipe {recipe!r} is in {opened.url}", hint=f"run it: {shlex.join(words)}"
        )
    target = out or settings.home / "reports" / f"{planned.recipe.name}.html"

    def read(record: Any, path: str) -> bytes:
        files = {f.path: f for f in (*record.files, *record.attachments)}
        return opened.read_bytes(files[path])

    output.show(str(build_report(records, read, target)))


def ui(
    store: StoreUrl = None,
    chat: Annotated[
        bool, typer.Option(help="Load the newest published model, and open the page to talk to it.")
    ] = True,
) -> None:
    """Open the Prefect, MLflow and chat pages until Ctrl-C."""
    from flows.display.servers import chat_page, serve_pages

    settings, opened = open_store(store)
    published = chat and _has_published(opened)
    output.say("starting the Prefect and MLflow servers…")
    with ExitStack() as servers:
        prefect_url, mlflow_url = servers.enter_context(serve_pages(settings.home, settings.mlflow_uri))
        output.show(f"Prefect  {prefect_url}\nMLflow   {mlflow_url}")
        if published:
            output.show(f"Chat     {servers.enter_context(chat_page(settings.home, opened.url))}")
        elif chat:
            output.say("no model is published yet; `nanochat run toy` makes one to talk to")
        output.say("Ctrl-C ends them all; runs started meanwhile show up here")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            output.say("closing")


def _has_published(store: Store) -> bool:
    try:
        store.resolve(PUBLISH.name)
    except StoreError:
        return False
    return True
