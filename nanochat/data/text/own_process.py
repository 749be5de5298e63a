"""Runs one function in a process of its own, for work that would keep Python's lock from other threads.

The child reports progress and its result through a pipe; a stop ends it at once, and a child whose parent
was killed ends with its next report. Processes come from a fork server, which imports `preload` once, so
that each further one costs a few milliseconds. What travels is pickled: use plain data and module functions.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeVar

from nanochat.errors import NanochatError

T = TypeVar("T")
Report = Callable[[int, int], None]  # (done, total)
_LOOK_S = 0.2


class ProcessDied(NanochatError):
    """A child process ended without an answer."""


def in_own_process(
    function: Callable[..., T],
    *arguments: Any,
    report: Report = lambda done, total: None,
    check_stop: Callable[[], None] = lambda: None,
    preload: tuple[str, ...] = (),
) -> T:
    """Return `function(*arguments, report)` as another process computes it.

    Raises what the function raises, what `check_stop` raises meanwhile, ProcessDied if the child was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            if ours.poll(_LOOK_S):
                kind, value = _receive(ours, process.pid, check_stop)
                if kind == "result":
                    return value  # type: ignore[no-any-return]
                if kind == "error":
                    raise value
                report(*value)
            check_stop()
    finally:
        process.kill()
        process.join()
        ours.close()


def _receive(
    connection: Connection[Any, Any], pid: int | None, check_stop: Callable[[], None]
) -> tuple[str, Any]:
    try:
        kind, value = connection.recv()
    except EOFError:
        check_stop()  # what asks us to stop may have ended the child as well
        raise ProcessDied(
            f"process {pid} ended without an answer",
            hint="the system kills processes when memory runs out; use fewer --workers",
        ) from None
    return kind, value


def _answer(
    connection: Connection[Any, Any], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    def send(kind: Literal["result", "error", "report"], value: Any) -> None:
        connection.send((kind, value))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    try:
        send("result", function(*arguments, lambda done, total: send("report", (done, total))))
    except BrokenPipeError:
        pass  # nobody is waiting any more
    except Exception as error:
        send("error", error)
