"""Ctrl-C while an answer is written: the answer ends, the conversation goes on. SIGTERM: the way out.

An exception in the middle of the model's work could leave half of a step behind, so Ctrl-C only asks, and the
answer ends after the step that it is in.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_PATIENCE = 3  # presses; then it is meant, and the program ends
TERMINATED = 128 + signal.SIGTERM
"""The exit code of a program that SIGTERM ended."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a program that Ctrl-C ended."""


@contextmanager
def ctrl_c_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C call `stop` while the block runs, and raise KeyboardInterrupt if pressed again and again."""
    presses = 0

    def pressed(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses >= _PATIENCE:
            raise KeyboardInterrupt
        stop()

    with _handling(signal.SIGINT, pressed):
        yield


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Let SIGTERM leave the block as an exit, so that the terminal is put back as it was."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    with _handling(signal.SIGTERM, ended):
        yield


@contextmanager
def _handling(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive elsewhere
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
