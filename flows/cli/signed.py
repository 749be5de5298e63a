"""Signed model folders on the command line: what `export` and `push` sign, and how `verify` checks it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import output
from flows.store import Store
from nanochat.errors import ConfigError

_PASSWORD = "NANOCHAT_KEY_PASSWORD"

PublicKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="PUBLIC", help="For a folder: the owner's public key (PEM)."),
]
WithLineage = Annotated[
    bool,
    typer.Option(
        "--lineage", help="For a folder: check also that the store has all that the model was made from."
    ),
]


def signing(key: Path | None) -> Callable[[Path], None] | None:
    """Return what signs a folder's files; None without a key. A password is asked for now."""
    if key is None:
        return None
    from nanochat.publish.signature import sign

    return partial(sign, key=key, password=_password(key))


def _password(key: Path) -> str | None:
    from nanochat.publish.signature import is_encrypted

    if not is_encrypted(key):
        return None
    if given := os.environ.get(_PASSWORD):
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"{key} has a password, and nobody was asked", hint=f"put it into {_PASSWORD}")
    return str(typer.prompt(f"Password of {key}", hide_input=True, err=True))


def signed_folder(ref: str | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return the folder that a reference names and the key for it; None for what is in the store."""
    from flows.models.find import folder_of

    folder = folder_of(ref) if ref else None
    if folder and key:
        return folder, key
    if folder:
        raise ConfigError(
            f"nothing says whose signature {folder} should have", hint="name the owner's public key: --key"
        )
    if key:
        raise ConfigError("--key is for a folder, and none is named", hint="name one, such as ./model")
    return None


def verify_folder(folder: Path, key: Path, store: Store | None, *, as_json: bool) -> None:
    """Check the signature of a folder's files, and with a store what they were made from; print what is said.

    Ends with exit code 1 if the store has something otherwise; raises DataError for a bad signature.
    """
    from flows.models.account import differences
    from nanochat.publish.made_from import read_statement
    from nanochat.publish.signature import check

    signed = check(folder, key)
    statement = read_statement(folder)
    found = list(differences(store, folder)) if store else []
    if as_json:
        output.show_json(
            {
                **asdict(signed),
                "made_from": statement and asdict(statement),
                "differences": found if store else None,
            }
        )
    else:
        for line in found:
            output.show(line)
        output.say(f"{len(signed.files)} files are as they were signed with the key {signed.key[:12]}")
        if statement:
            output.say(
                f"by their owner's account: recipe {statement.recipe} at commit {statement.commit}"
                f" from {len(statement.ancestors)} artifacts"
            )
        if store and not found:
            output.say("the store has all of them, unchanged")
    if found:
        raise typer.Exit(1)
