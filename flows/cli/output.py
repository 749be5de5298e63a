"""Where a command's output goes: data to stdout, everything else to stderr; all of it printable.

Knows nothing about the content; tables and texts are formatted in `flows.cli.tables`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from nanochat.credentials import without_credentials
from nanochat.printable import printable
from nanochat.system_errors import naming

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_PIPES = 160
GO_ON = "finished work is kept; the same command continues from there"

failed = threading.Event()  # a command has said why it fails


def stderr() -> Console:
    """Return the console for everything that is not data."""
    from flows.display.console import PrintableConsole  # brings rich, which an answer does not need

    return PrintableConsole(stderr=True)


def show(what: object) -> None:
    """Print a text or a table as data."""
    from flows.display.console import PrintableConsole

    console = PrintableConsole()
    if not console.is_terminal:
        console.width = _WIDTH_OF_PIPES
    with naming(_stdout()):
        console.print(what, soft_wrap=isinstance(what, str))


def show_json(data: Any) -> None:
    """Print plain data for programs, in ASCII; null stands for a float that is not finite."""
    text = without_credentials(
        json.dumps(_finite(data), indent=2, default=_as_text, ensure_ascii=True, allow_nan=False)
    )
    with naming(_stdout()):
        print(text.replace("\x7f", r"\u007f"), flush=True)  # a control character that JSON leaves alone


def _as_text(value: object) -> str:
    """Return a path or a time as text; raise TypeError for what has no form for programs."""
    if isinstance(value, os.PathLike | date | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _finite(data: Any) -> Any:
    """Return plain data without infinities and numbers that are none, which JSON cannot hold."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: _finite(value) for name, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def write(text: str) -> None:
    """Print a piece of data at once, such as a piece of an answer."""
    with naming(_stdout()):
        print(printable(text), end="", flush=True)


def _stdout() -> Path:
    """Return the file that standard output leads to, for errors."""
    return Path("/dev/stdout").resolve()


def say(text: str) -> None:
    """Print something that is not data."""
    stderr().print(text, soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Print what a user should know although nothing failed."""
    for warning in warnings:
        say(f"warning: {warning}")


def fail(message: str, hint: str | None, code: int = 1) -> NoReturn:
    """Print what went wrong and how to fix it, and exit with a code."""
    failed.set()
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
    sys.exit(code)
