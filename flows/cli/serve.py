"""The verb `serve`: an HTTP server for one model. `flows.cli.app` registers it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, Source, Step, Tag, Weights, choice_of
from flows.cli.options import Device, StoreUrl, open_store
from nanochat.serve.serve_settings import KEY_VARIABLE, ServeSettings

if TYPE_CHECKING:
    from nanochat.serve.service import MakeEngine


def serve(
    ref: ModelRef = "publish",
    store: StoreUrl = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    key: Annotated[
        str | None,
        typer.Option(
            envvar=KEY_VARIABLE,
            help="Secret that every request must bring; needed for any address but this machine's own. Better"
            " in the environment: others on this machine can read arguments.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Let pages of this origin use the server; repeatable, * for all."
        ),
    ] = None,
    device: Device = "cpu",
    weights: Weights = "auto",
    engines: Annotated[
        int | None, typer.Option(min=1, max=64, help="Engines (default: one, or one for each GPU).")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=1024, help="Answers that one engine writes together.")] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Answers that may wait; further ones get 429.")] = 64,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which an answer ends as it is.")
    ] = 600,
    grace: Annotated[float, typer.Option(min=0, help="Seconds to finish answers in when stopped.")] = 30,
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
) -> None:
    """Serve a model: a page to talk to it, and OpenAI's API."""
    from flows.models.engines import find_model, make_engines

    if key:
        os.environ[KEY_VARIABLE] = key  # what is secret in the environment is left out of all that is printed
    settings = ServeSettings(
        host=host,
        port=port,
        key=key or None,
        allow_origins=tuple(allow_origin or ()),
        rows=rows,
        queue=queue,
        timeout_s=timeout,
        grace_s=grace,
    )
    _, opened = open_store(store)
    name = find_model(opened, ref)
    from nanochat.serve.http_server import HttpServer, address_of, open_socket, serve
    from nanochat.serve.web_page import read_page

    page, listening = read_page(), open_socket(host, port)
    output.show(address_of(listening))
    output.say(f"loading {name}…")

    def load() -> tuple[str, list[tuple[str, MakeEngine]]]:
        return name, make_engines(
            opened,
            ref,
            choice_of(source, tag, step),
            device=device,
            weights=weights,
            count=engines,
            rows=rows,
        )

    serve(HttpServer(settings, load, page, output.say), listening)
