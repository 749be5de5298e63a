"""Where all that is printed or logged passes: foreign text as text, and without credentials.

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

from nanochat.credentials import without_credentials
from nanochat.printable import printable


def clean(text: str) -> str:
    """Return a text as it may be shown and kept."""
    return printable(without_credentials(text))


class PrintableConsole(Console):
    """A rich console on which only rich's own styles and cursor movements act."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string, such as a table's cell, before its width is measured."""
        return super().render_str(clean(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, whatever it was made from."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


class CleanLogRecord(logging.LogRecord):
    """A log record that is clean, its traceback included, whoever's handler writes it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = clean("".join(traceback.format_exception(*self.exc_info)).rstrip())

    def getMessage(self) -> str:
        """Return the message with its arguments filled in."""
        return clean(super().getMessage())


def keep_output_clean() -> None:
    """Let log records of this process, and errors that nobody caught on any thread, be clean."""
    logging.setLogRecordFactory(CleanLogRecord)
    sys.excepthook = _print_traceback
    threading.excepthook = lambda args: _print_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def _print_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))
