"""Ctrl-C and SIGTERM of `nanochat run`: the first asks the stages to stop, the second ends the process.

A training stage has the time that its restart point takes. What comes after it is bounded: Prefect reports
states to a server that may be gone, servers shut down, libraries wait at exit. All that matters is kept by
then, so the process ends after a few seconds, with the message that it would have ended with.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AFTER_STOP_S = 5.0
_LOOK_S = 0.1


@contextmanager
def stopping_on_signals(
    stop: threading.Event, say: Callable[[str], None], keeping: Callable[[], bool], leave: Callable[[], None]
) -> Iterator[None]:
    """Set `stop` at the first signal, and see that the process ends soon, even after the block.

    `leave` is called if it has not ended `AFTER_STOP_S` after nothing was `keeping` a restart point any more.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()
        threading.Thread(target=end_in_time, args=(keeping, leave), name="end", daemon=True).start()
        say("stopping: running stages save a restart point (again to exit immediately)")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_in_time(
    keeping: Callable[[], bool],
    leave: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `leave` once nothing has been `keeping` a restart point for a while."""
    deadline = clock() + AFTER_STOP_S
    while clock() < deadline:
        sleep(_LOOK_S)
        if keeping():
            deadline = clock() + AFTER_STOP_S
    leave()
