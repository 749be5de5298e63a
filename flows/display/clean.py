"""What is logged, and errors that nobody caught: foreign text as text, and without credentials.

What is shown comes from records, files, models and other programs, so control characters in it mean nothing
here. Knows nothing about the content.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from nanochat.credentials import without_credentials
from nanochat.printable import printable


def clean(text: str) -> str:
    """Return a text as it may be shown and kept."""
    return printable(without_credentials(text))


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
