"""The bounded queue between a training loop and the thread that talks to MLflow: calls still to be made.

Putting never blocks and never fails. What is only nice to have (metrics, samples) is dropped oldest first
once the queue is full, and counted; what gives the rest its meaning (a run begins, a run ends) is always
kept: there are a few such calls per stage. Knows nothing of MLflow.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple


@dataclass(eq=False)
class RunHandle:
    """One run of the tracker; its MLflow id is known once the draining thread has created it."""

    name: str
    parent: RunHandle | None = None
    run_id: str | None = None
    foreign: bool = False  # made by another process, which is to end it
    lossy: bool = False  # some of its events were dropped or refused
    created: threading.Event = field(default_factory=threading.Event)  # also set when it never will be
    _system_steps: Iterator[int] = field(default_factory=itertools.count)

    def next_system_step(self) -> int:
        """Return the number of the next sample of the machine's load."""
        return next(self._system_steps)


class Point(NamedTuple):
    """Numbers of one step."""

    numbers: Mapping[str, float]
    step: int
    time_ms: int


@dataclass(frozen=True)
class Call:
    """A call of the client about a run, bound to all but the run and its points; the first one creates it."""

    run: RunHandle
    client: Callable[..., None]
    points: tuple[Point, ...] = ()  # calls with points are of one function, and of one run can be made as one

    @property
    def events(self) -> int:
        """How many calls were joined to this one."""
        return max(1, len(self.points))

    def make(self) -> None:
        """Make the call."""
        self.client(self.run, *([self.points] if self.points else []))


def join_points(calls: Sequence[Call]) -> list[Call]:
    """Return the calls with each run's points in one, placed before anything that follows them.

    Points of one run may overtake other runs' calls, never their own run's begin or end.
    """
    joined: list[Call] = []
    places: dict[RunHandle, int] = {}
    for call in calls:
        if not call.points:
            places.pop(call.run, None)
        elif (place := places.setdefault(call.run, len(joined))) < len(joined):
            joined[place] = replace(joined[place], points=joined[place].points + call.points)
            continue
        joined.append(call)
    return joined


class CallQueue:
    """Calls in order; full means that the oldest metrics and samples go."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._calls: OrderedDict[int, Call] = OrderedDict()
        self._lossy: deque[int] = deque()  # which of them may be dropped
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._hurried = False
        self.closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, run: RunHandle, client: Callable[..., None], *points: Point, lossy: bool = False) -> None:
        """Append a call; never blocks. After `close` it is dropped and counted."""
        with self._changed:
            if self.closed:
                self.dropped += 1
                return
            number = next(self._numbers)
            if lossy and len(self._lossy) >= self._capacity:
                self._calls.pop(self._lossy.popleft()).run.lossy = True
                self.dropped += 1
            if lossy:
                self._lossy.append(number)
            self._calls[number] = Call(run, client, points)

    def take(self, limit: int) -> list[Call]:
        """Return up to `limit` calls in order, without waiting."""
        with self._changed:
            taken = dict(self._calls.popitem(last=False) for _ in range(min(limit, len(self._calls))))
            while self._lossy and self._lossy[0] in taken:
                self._lossy.popleft()
            return list(taken.values())

    def clear(self) -> None:
        """Drop everything and count it."""
        with self._changed:
            self.dropped += len(self.take(len(self._calls)))

    def hurry(self) -> None:
        """Wake whoever takes calls: somebody is waiting for one of them to be made."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def rest(self, timeout_s: float) -> bool:
        """Sleep, but wake when the queue is closed or `hurry` is called; return whether it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._hurried, timeout_s)
            self._hurried = False
            return self.closed

    def wait_closed(self, timeout_s: float) -> bool:
        """Sleep, but wake at once when the queue is closed; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, timeout_s)

    def close(self) -> None:
        """Take no more calls; those already there can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
