"""Options that the verbs about one model share: which model, and which checkpoint of a published folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nanochat.formats.published import SOURCES

if TYPE_CHECKING:
    from nanochat.formats.published import Choice

_SOURCES = " or ".join((", ".join(SOURCES[:-1]), SOURCES[-1]))

ModelRef = Annotated[
    str,
    typer.Argument(
        help="A trained stage, `publish` or `import` (its newest record), stage/<key prefix>, or a published"
        " folder (./NAME if a stage has that name too)."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        help=f"In a folder with several training stages, this one: {_SOURCES} (default: {SOURCES[0]})."
    ),
]
Tag = Annotated[
    str | None,
    typer.Option(help="In a folder with several models, this one, such as d20 (default: deepest)."),
]
Step = Annotated[
    int | None, typer.Option(min=0, help="In a folder with several steps, this one (default: newest).")
]

SignKey = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign all files with this private key (PEM, elliptic curve), beside an account of what the model"
        " was made from. A password is asked for, or is in NANOCHAT_KEY_PASSWORD.",
    ),
]

Weights = Annotated[
    Literal["auto", "float32", "bfloat16", "int8", "int4"],
    typer.Option(
        help="Weights to compute with; fewer bytes are faster on a CPU. auto: float32 for small models, else"
        " int8 on a CPU and bfloat16 on a GPU. `nanochat info` measures what each costs in quality."
    ),
]


def choice_of(source: str | None, tag: str | None, step: int | None) -> Choice:
    """Return which checkpoint of a published folder is meant."""
    from nanochat.formats.published import Choice

    return Choice(source=source, tag=tag, step=step)
