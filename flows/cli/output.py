"""Where a command's output goes: data to stdout, everything else to stderr.

Knows nothing about the content; tables and texts are formatted in `flows.cli.tables`.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any, NoReturn

from rich.console import Console

_WIDTH_OF_PIPES = 160
GO_ON = "finished work is kept; the same command continues from there"

failed = threading.Event()  # a command has said why it fails


def stderr() -> Console:
    """Return the console for everything that is not data."""
    return Console(stderr=True, highlight=False)


def show(what: object) -> None:
    """Print a text or a table as data."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_PIPES
    console.print(what, soft_wrap=isinstance(what, str))


def show_json(data: Any) -> None:
    """Print plain data for programs."""
    print(json.dumps(data, indent=2, default=str))


def say(text: str) -> None:
    """Print something that is not data."""
    stderr().print(text, markup=False, soft_wrap=True)


def fail(message: str, hint: str | None, code: int = 1) -> NoReturn:
    """Print what went wrong and how to fix it, and exit with a code."""
    failed.set()
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
    sys.exit(code)
