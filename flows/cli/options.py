"""Options that several verbs of the command line share, and the store that they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from flows.settings import Settings
from nanochat.errors import ConfigError
from nanochat.runtime import DEVICES

if TYPE_CHECKING:
    from flows.store import Store

StoreUrl = Annotated[
    str | None, typer.Option("--store", help="Folder or fsspec URL of the store (default: $NANOCHAT_STORE).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Ref = Annotated[str, typer.Argument(help="A stage (its newest record), a node, or stage/<key prefix>.")]


def _checked_device(device: str) -> str:
    if not re.fullmatch(DEVICES, device):
        raise ConfigError(f"--device is {device!r}", hint="use cpu, cuda, or one GPU such as cuda:3")
    return device


Device = Annotated[str, typer.Option(callback=_checked_device, help="cpu, cuda, or one GPU such as cuda:3.")]


def open_store(url: str | None) -> tuple[Settings, Store]:
    """Return the settings of this machine and the store that the options name."""
    from flows.store import Store

    settings = Settings.from_environment(store=url)
    return settings, Store.open(settings.store_url, cache=settings.cache)


RecipeName = Annotated[str, typer.Argument(help="A preset; `nanochat recipes` lists them.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="FIELD=VALUE",
        help="Change one field by its dotted name; repeatable."
        " Text is taken as typed; several are [first, second].",
    ),
]
AllowUnsafeCode = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-code",
        help="Run model-written code even where it cannot be jailed (evaluate.allow_unsafe_code).",
    ),
]
Until = Annotated[str | None, typer.Option(help="Stop after this stage.")]
