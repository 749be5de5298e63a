"""Where all that is printed passes: a console, log lines and tracebacks that print foreign text as text.

What is shown comes from records, files, models and other programs, so neither control characters nor rich's
markup and emoji names in it mean anything here. Knows nothing about the content.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from nanochat.printable import printable


class PrintableConsole(Console):
    """A rich console on which only rich's own styles and cursor movements act."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string, such as a table's cell, before its width is measured."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, whatever it was made from."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class PrintableFormatter(logging.Formatter):
    """Writes log records, their tracebacks included, as printable text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line or lines."""
        return printable(super().format(record))


def print_printable_tracebacks() -> None:
    """Let errors that nobody caught, on any thread, be printed as printable text."""
    sys.excepthook = _print_traceback
    threading.excepthook = lambda args: _print_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def _print_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
