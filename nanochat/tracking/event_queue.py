"""The bounded queue between a training loop and the thread that talks to MLflow.

Putting never blocks and never fails. What is only nice to have (metrics, samples) is dropped oldest first
once the queue is full, and counted; what gives the rest its meaning (a run begins, a run ends) is always
kept: there are a few such events per stage. Knows nothing of MLflow.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
Dataset = tuple[str, str, str]  # name, digest (sha256 in hex), source (URL or path)


@dataclass(eq=False)
class RunHandle:
    """One run of the tracker; its MLflow id is known once the draining thread has created it."""

    name: str
    parent: RunHandle | None = None
    run_id: str | None = None
    foreign: bool = False  # made by another process, whose it is to end
    created: threading.Event = field(default_factory=threading.Event)  # also set when it never will be
    _system_steps: Iterator[int] = field(default_factory=itertools.count)

    def next_system_step(self) -> int:
        """Return the number of the next sample of the machine's load."""
        return next(self._system_steps)


@dataclass(frozen=True)
class BeginRun:
    """Create the MLflow run of `handle`."""

    run: RunHandle
    tags: Mapping[str, str]
    time_ms: int


@dataclass(frozen=True)
class AddParams:
    """Settings of a run, already flat."""

    run: RunHandle
    params: Mapping[str, str]


@dataclass(frozen=True)
class AddTags:
    """Tags that become known after the run has begun."""

    run: RunHandle
    tags: Mapping[str, str]


@dataclass(frozen=True)
class AddDatasets:
    """Input artifacts of a run."""

    run: RunHandle
    datasets: Sequence[Dataset]


@dataclass(frozen=True)
class AddMetrics:
    """Numbers of one step."""

    run: RunHandle
    metrics: Mapping[str, float]
    step: int
    time_ms: int
    lossy: bool = True  # may be dropped when the queue is full


@dataclass(frozen=True)
class AddText:
    """A sample made at a step."""

    run: RunHandle
    text: str
    step: int


@dataclass(frozen=True)
class EndRun:
    """Set the final status of a run."""

    run: RunHandle
    status: RunStatus
    time_ms: int


TrackingEvent = BeginRun | AddParams | AddTags | AddDatasets | AddMetrics | AddText | EndRun


def merge_metrics(events: Sequence[TrackingEvent]) -> list[TrackingEvent | list[AddMetrics]]:
    """Return the events with each run's metrics in one list, placed before anything that follows them.

    Metrics of one run may overtake other runs' events, never their own run's begin or end.
    """
    merged: list[TrackingEvent | list[AddMetrics]] = []
    pending: dict[RunHandle, list[AddMetrics]] = {}
    for event in events:
        if isinstance(event, AddMetrics):
            if event.run not in pending:
                pending[event.run] = []
                merged.append(pending[event.run])
            pending[event.run].append(event)
        else:
            pending.pop(event.run, None)
            merged.append(event)
    return merged


class TrackingQueue:
    """Events in order; full means that the oldest metrics and samples go."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lossy: deque[tuple[int, TrackingEvent]] = deque()
        self._kept: deque[tuple[int, TrackingEvent]] = deque()
        self._next = 0
        self._changed = threading.Condition()
        self._closed = self._hurried = False
        self.dropped = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._lossy) + len(self._kept)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, event: TrackingEvent) -> None:
        """Append an event; never blocks. After `close` it is dropped and counted."""
        with self._changed:
            if self._closed:
                self.dropped += 1
                return
            lossy = isinstance(event, AddText) or (isinstance(event, AddMetrics) and event.lossy)
            if lossy and len(self._lossy) >= self._capacity:
                self._lossy.popleft()
                self.dropped += 1
            (self._lossy if lossy else self._kept).append((self._next, event))
            self._next += 1
            self._changed.notify_all()

    def take(self, limit: int) -> list[TrackingEvent]:
        """Return up to `limit` events in order, without waiting."""
        with self._changed:
            events: list[TrackingEvent] = []
            while len(events) < limit and (self._lossy or self._kept):
                lossy_first = self._lossy and (not self._kept or self._lossy[0][0] < self._kept[0][0])
                events.append((self._lossy if lossy_first else self._kept).popleft()[1])
            return events

    def hurry(self) -> None:
        """End the rest of whoever takes events: somebody waits for one of them to be written."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def rest(self, timeout_s: float) -> bool:
        """Sleep, but wake when the queue is closed or `hurry` is called; return whether it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._hurried, timeout_s)
            self._hurried = False
            return self._closed

    def wait_closed(self, timeout_s: float) -> bool:
        """Sleep, but wake at once when the queue is closed; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout_s)

    def close(self) -> None:
        """Take no more events; those already there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Drop everything and count it."""
        with self._changed:
            self.dropped += len(self._lossy) + len(self._kept)
            self._lossy.clear()
            self._kept.clear()
