"""The thread between the queue and the place where runs are shown: retries, outages, giving up.

It knows nothing of MLflow: the sink does the slow import, connects and makes the calls. The stage that puts
them never waits for this thread; the engine does once, at the end, for a bounded time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import psutil

from nanochat.errors import is_refusal
from nanochat.tracking.call_queue import Call, CallQueue, Point, RunHandle, join_points
from nanochat.tracking.database import is_locked

_log = logging.getLogger(__name__)

_TAKEN_AT_ONCE = 1000
_LOCKED_S = 0.2  # between tries, while another process writes to the database


class Sink(Protocol):
    """The client whose calls are queued; each raises when that did not work."""

    def reach(self) -> None:
        """Find out cheaply that the other side is there."""

    def load(self) -> None:
        """Import what it needs, which may take seconds."""

    def connect(self) -> None:
        """Reach the other side; all calls come after it."""

    def add_metrics(self, run: RunHandle, points: Sequence[Point]) -> None:
        """Write numbers of a run."""

    def answers(self) -> bool:
        """Return whether the other side is up."""


class _GaveUp(Exception):
    """The server is not coming back in time."""


class Drain:
    """Takes calls from a queue and makes them, in a daemon thread."""

    failures_allowed = 3
    interval_s = 0.5
    system_every_s = 5.0

    def __init__(self, name: str, queue: CallQueue, sink: Sink) -> None:
        self.errors = 0
        self.lost = 0  # events that were taken, and refused or not written before giving up
        self.gave_up = False
        self.open_runs: set[RunHandle] = set()
        self._name = name
        self._queue = queue
        self._sink = sink
        self._connected = False
        self._taken: deque[Call] = deque()  # from the queue, still to be made
        self._loaded = threading.Event()
        self._progress = 0
        self._failures = 0
        self._next_sample = 0.0
        self._thread = threading.Thread(target=self._run, name="mlflow-tracker", daemon=True)

    @property
    def loaded(self) -> bool:
        """Whether the slow import is over."""
        return self._loaded.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, limit_s: float) -> bool:
        """Wait for the end, at most `limit_s`; return whether it has come."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def refuse(self, reason: str) -> None:
        """Give up before the start: what is queued is dropped."""
        self.gave_up = True
        _log.warning("%s", reason)
        self._stop()

    def _run(self) -> None:
        try:
            psutil.cpu_percent(None)  # the first call only starts the measurement
            self._retry(self._sink.reach)
            self._progress = 0  # that was no call yet
            self._sink.load()
            self._loaded.set()
            self._retry(self._sink.connect)
            self._connected = True
            while not (self._queue.rest(self.interval_s) and not len(self._queue)):
                self._taken.extend(join_points(self._queue.take(_TAKEN_AT_ONCE)))
                while self._taken:
                    self._make(self._taken[0])
                    self._taken.popleft()
                self._sample_system()
        except _GaveUp as end:
            self.gave_up = True
            why = f": {first_line(end.__cause__)}" if end.__cause__ else ""
            _log.warning(
                "no answer from %s%s; this run is not shown there; the next one will", self._name, why
            )
        except Exception:
            self.gave_up = True
            self.errors += 1
            _log.warning("%s failed; this run is not shown from here on", self._name, exc_info=True)
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loaded.set()
        self._queue.close()
        self._queue.clear()
        self.lost += sum(call.events for call in self._taken)
        self._taken.clear()

    def _make(self, call: Call) -> None:
        run = call.run
        if run.created.is_set() and run.run_id is None:
            return  # its creation was refused, and that was counted
        if not self._retry(call.make):
            self.lost += call.events
            run.lossy = True
        run.created.set()  # also when the first call was refused, so that nobody waits for it

    def _retry(self, work: Callable[[], None]) -> bool:
        """Do one piece of work; wait out an outage, leave out what a healthy server refuses: False."""
        refusals = 0
        while True:
            try:
                work()
                self._failures = 0
                self._progress += 1
                return True
            except Exception as error:
                self.errors += 1
                _log.debug("%s: %s", self._name, error)
                cause = error
                if not is_locked(error):  # else it still answers, and takes the call a moment later
                    refusals += 1 if self._connected and self._sink.answers() else 0
                if not self._connected and is_refusal(error):
                    raise _GaveUp from error
                if is_refusal(error) or refusals >= 2:
                    return False
            if is_locked(cause):
                time.sleep(_LOCKED_S)
                continue
            self._failures += 1
            hopeless = self._progress == 0 or self._queue.closed
            if self._failures >= self.failures_allowed and hopeless:
                raise _GaveUp from cause
            if self._failures == self.failures_allowed:
                _log.warning("%s does not answer; trying again now and then", self._name)
            self._queue.wait_closed(min(60.0, 2.0 ** (self._failures - 1)))

    def _sample_system(self) -> None:
        now = time.monotonic()
        if now < self._next_sample or not self.open_runs:
            return
        self._next_sample = now + self.system_every_s
        self.sample(*self.open_runs)

    def sample(self, *runs: RunHandle) -> None:
        """Queue this machine's load for some runs: now and then, and when a stage begins and ends."""
        numbers = {
            "system/cpu_percent": psutil.cpu_percent(None),
            "system/memory_bytes": float(psutil.virtual_memory().used),
        }
        for run in runs:
            point = Point(numbers, run.next_system_step(), int(time.time() * 1000))
            self._queue.put(run, self._sink.add_metrics, point, lossy=True)


def first_line(error: BaseException | None) -> str:
    """Return what an error says first, within one line of a terminal."""
    return str(error).strip().partition("\n")[0][:200]
