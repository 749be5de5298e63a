"""A flow in its own process: ends in order when it is cancelled or its process is asked to end.

Prefect's worker passes a cancellation on as SIGTERM, but it may be gone, or have given up looking after an
outage of the server. So the flow looks itself: it asks for the state of its own run every few seconds, and
goes on asking through an outage, however long. Either way the stages are asked to stop, and keep a restart
point; ranks that do not stop in time are killed.

`flows.pipeline` runs both flows in here; what a stop means for a stage is its own business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

import psutil
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows.run.flow_runs import FlowRuns, flow_runs

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
Server = Callable[[], AbstractContextManager[FlowRuns]]

_LOOK_S = 2.0
RANKS_STOP_WITHIN_S = 10.0  # longer than a step and its restart point take; then they are killed
ENDS_WITHIN_S = 25.0  # Prefect's worker kills what it has sent SIGTERM to after 30 s
REPORTED_WITHIN_S = 5.0  # how a run ended, to a server that may be away
_SIGNALS_S = 0.2
_AGENT = "nanochat.ranks.agent"  # the module that starts and ends ranks


def run_in_order(
    body: Callable[[], Made],
    stop: threading.Event,
    flow_run_id: str,
    *,
    owns_process: bool,
    server: Server = flow_runs,
) -> Made | State[None]:
    """Return what `body` returns, or the state Cancelled if the flow run was cancelled meanwhile.

    `body` must end soon once `stop` is set. Ranks that do not are killed; with `owns_process`, when it runs
    nothing else, this process as well. A user's own process is left alone, and so are its ranks unless the
    flow run was cancelled: after Ctrl-C a user decides how long to wait.
    """
    watch = Watch(flow_run_id, stop, server)
    with (
        watch.looking(),
        _ended_within_limits(stop if owns_process else watch.cancelled, watch, owns_process),
    ):
        try:
            made = _on_thread(body, stop)
        except Exception as error:
            if not watch.cancelled.is_set():
                raise
            logger.warning("cancelled: %s", error)
            return Cancelled(message=f"{error}")
    return Cancelled(message="cancelled as it ended") if watch.cancelled.is_set() else made


@dataclass
class Watch:
    """Looks whether a flow run is being cancelled, and then sets `stop`; an outage only delays it."""

    flow_run_id: str
    stop: threading.Event
    server: Server = flow_runs
    cancelled: threading.Event = field(default_factory=threading.Event)
    _done: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look on a thread while the block runs."""
        thread = threading.Thread(target=self._look_on, name="watch-for-cancel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()  # the thread may be waiting for an answer, and is not waited for

    def _look_on(self) -> None:
        away = False
        while not self._done.is_set() and not self.cancelled.is_set():
            try:
                with self.server() as server:
                    self._look(server, away)
            except Exception as error:
                if not away:
                    logger.warning("the Prefect server does not answer, still asking: %s", error)
                away = True
            self._done.wait(_LOOK_S)

    def _look(self, server: FlowRuns, away: bool) -> None:
        """Look until the run is cancelled or the block has ended; raise what the server's client raises."""
        while True:
            now = server.now(self.flow_run_id)
            if away:
                logger.warning("the Prefect server answers again")
                away = False
            if now.cancelled:
                self.cancelled.set()
                self.stop.set()
                return
            if self._done.wait(_LOOK_S):
                return


def _on_thread(body: Callable[[], Made], stop: threading.Event) -> Made:
    """Run `body` on a thread of its own, so that a signal that arrives here does not tear it up.

    Prefect turns SIGTERM into an exception of the main thread, in the middle of whatever that does. Here it
    sets `stop`, waits until `body` has ended in order, and goes on its way.
    """
    made: list[Made] = []
    errors: list[BaseException] = []
    ended = threading.Event()  # `Thread.join` takes a thread for ended once an exception has left it

    def guarded() -> None:
        try:
            made.append(body())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    context = copy_context()
    thread = threading.Thread(target=lambda: context.run(guarded), name="flow", daemon=True)
    try:
        thread.start()
        while not ended.wait(_SIGNALS_S):  # short waits, so that signals arrive
            pass
    except BaseException:
        stop.set()
        if thread.ident is not None:
            ended.wait(ENDS_WITHIN_S)
        raise
    if errors:
        raise errors[0]
    return made[0]


@contextmanager
def _ended_within_limits(asked: threading.Event, watch: Watch, owns_process: bool) -> Iterator[None]:
    """Once it is `asked` to stop, kill ranks that go on for too long, and in the end this process."""
    done = threading.Event()

    def limit() -> None:
        while not asked.wait(_SIGNALS_S):
            if done.is_set():
                return
        since = time.monotonic()
        if not done.wait(RANKS_STOP_WITHIN_S):
            kill_below(_children() if owns_process else _ranks())
        if not owns_process:
            return
        if done.wait(max(0.0, ENDS_WITHIN_S - (time.monotonic() - since))):
            _end_unreported()
        else:
            _end_process(watch)

    threading.Thread(target=limit, name="limit-of-stop", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _ranks() -> list[psutil.Process]:
    """Return the processes of torchrun below this one; others, such as a local server, go on."""
    found: list[psutil.Process] = []
    for child in _children():
        with contextlib.suppress(psutil.Error):
            if _AGENT in child.cmdline():
                found += [child, *child.children(recursive=True)]
    return found


def kill_below(processes: Sequence[psutil.Process]) -> None:
    """Kill processes that were asked to stop."""
    if processes:
        logger.warning(
            "%d processes did not stop within %.0f s and are killed", len(processes), RANKS_STOP_WITHIN_S
        )
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _end_unreported() -> None:
    """End a process that has kept what it had, if Prefect cannot report that soon: it tries for minutes."""
    time.sleep(REPORTED_WITHIN_S)
    os._exit(1)


def _end_process(watch: Watch) -> None:
    """End a process whose own step goes on; say first that the run was cancelled, if it was."""
    logger.warning("the stage did not stop within %.0f s; its process ends here", ENDS_WITHIN_S)
    kill_below(_children())
    if watch.cancelled.is_set():
        with contextlib.suppress(Exception), watch.server() as server:
            server.set_cancelled(watch.flow_run_id, "ended by force: it did not stop in time")
            os._exit(0)
    os._exit(1)
