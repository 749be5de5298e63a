"""The verb `ui`: the pages of Prefect, MLflow and the chat, until Ctrl-C."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from flows.cli import output
from flows.cli.options import StoreUrl, open_store
from flows.stages import PUBLISH
from flows.store import Store
from nanochat.errors import StoreError


def ui(
    store: StoreUrl = None,
    chat: Annotated[
        bool, typer.Option(help="Load the newest published model, and open the page to talk to it.")
    ] = True,
) -> None:
    """Open the Prefect, MLflow and chat pages until Ctrl-C."""
    from flows.display.newest_runs import comparison_of_newest
    from flows.display.servers import chat_page, serve_pages

    settings, opened = open_store(store)
    published = chat and _has_published(opened)
    output.say("starting the Prefect and MLflow servers…")
    with ExitStack() as servers, suppress(KeyboardInterrupt):
        prefect_url, mlflow_url = servers.enter_context(serve_pages(settings.home, settings.mlflow_uri))
        output.show(f"Prefect  {prefect_url}\nMLflow   {mlflow_url}")
        if compared := comparison_of_newest(mlflow_url):
            output.show(f"Compare  {compared}")
        if published:
            output.show(f"Chat     {servers.enter_context(chat_page(settings.home, opened.url))}")
        elif chat:
            output.say("no model is published yet; `nanochat run toy` makes one to talk to")
        output.say("Ctrl-C ends them all; runs started meanwhile show up here")
        threading.Event().wait()
    output.say("closed")


def _has_published(store: Store) -> bool:
    try:
        store.resolve(PUBLISH.name)
    except StoreError:
        return False
    return True
