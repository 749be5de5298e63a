"""Where answers to be written wait for an engine: one queue, from which each engine's thread takes its share.

A thread takes a job only while no other engine has fewer, so that engines are equally busy. All methods may
be called from any thread. What is done with a job is up to `nanochat.serve.engine_thread`, who waits for it
up to `nanochat.serve.answering`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nanochat.chat.pieces import Piece
from nanochat.chat.request import TokenLogprobs
from nanochat.config import Sampling

Ending = Literal["stop", "length", "context", "cancelled", "tool_calls", "timeout"]
"""Why an answer ended: as the engine says, at a call that the client works out, or when its time was over."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What is new of one answer."""

    pieces: tuple[Piece, ...] = ()
    held: tuple[Piece, ...] = ()
    """Held back so far: an answer that ends now has these as well."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    tokens: int = 0
    """Written so far, all in all."""
    reused: int = 0
    """Of the prompt, those that were not read again."""
    ending: Ending | None = None
    call: str | None = None
    """The expression that the client is to work out; with ending `tool_calls`."""
    error: Exception | None = None
    engine: int = 0
    """The number of the engine that writes it."""

    @property
    def last(self) -> bool:
        """Return whether nothing follows."""
        return self.ending is not None or self.error is not None


@dataclass(eq=False)
class AnswerJob:
    """One answer to be written."""

    prompt: tuple[int, ...]
    sampling: Sampling
    deliver: Callable[[News], None]
    """Takes what is new; called on the thread of the event loop."""
    ends_at_call: bool = False
    """The answer ends when the model has written a calculation, which the client works out."""
    cancelled: bool = False


class QueueFull(Exception):
    """More answers are waiting than may."""


class NoEngine(Exception):
    """No engine is left that could write an answer."""


class JobDesk:
    """Hands jobs to engines."""

    def __init__(self, *, rows: int, queue: int) -> None:
        self.rows = rows
        self._queue = queue
        self._waiting: deque[AnswerJob] = deque()
        self._loads: dict[int, int] = {}  # jobs that each engine has taken and not finished
        self._closed = False
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Return how many jobs wait for an engine."""
        return len(self._waiting)

    @property
    def loads(self) -> dict[int, int]:
        """Return how many answers each engine is writing."""
        with self._changed:
            return dict(self._loads)

    def join(self, engine: int) -> None:
        """Let an engine take jobs."""
        with self._changed:
            self._loads[engine] = 0

    @property
    def room(self) -> int:
        """Return how many jobs there is room for when nothing is being written."""
        return len(self.loads) * self.rows + self._queue

    def put(self, jobs: Sequence[AnswerJob]) -> None:
        """Take in all of the jobs, or raise QueueFull or NoEngine and take in none."""
        with self._changed:
            if not self._loads or self._closed:
                raise NoEngine
            free = len(self._loads) * self.rows - sum(self._loads.values())
            if len(self._waiting) + len(jobs) > self._queue + free:
                raise QueueFull
            self._waiting.extend(jobs)
            self._changed.notify_all()

    def cancel(self, jobs: Sequence[AnswerJob]) -> None:
        """See that jobs take up no place any more: at once, or from the engine's next step on."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
                if job in self._waiting:
                    self._waiting.remove(job)

    def take(self, engine: int) -> list[AnswerJob] | None:
        """Return the jobs that an engine is to begin; None once the desk is closed.

        Waits while the engine has nothing to write and nothing waits for it.
        """
        with self._changed:
            while not self._closed and not self._loads[engine] and not self._waiting:
                self._changed.wait()
            if self._closed:
                return None
            taken: list[AnswerJob] = []
            while self._waiting and self._is_its_turn(engine):
                taken.append(self._waiting.popleft())
                self._loads[engine] += 1
            return taken

    def _is_its_turn(self, engine: int) -> bool:
        load = self._loads[engine]
        return load < self.rows and load == min(self._loads.values())

    def done(self, engine: int) -> None:
        """Note that an engine has finished one of its jobs."""
        with self._changed:
            self._loads[engine] -= 1

    def leave(self, engine: int) -> list[AnswerJob]:
        """Let an engine take no more jobs; return those that wait in vain if it was the last."""
        with self._changed:
            del self._loads[engine]
            self._changed.notify_all()
            return self.empty() if not self._loads else []

    def empty(self) -> list[AnswerJob]:
        """Return the jobs that wait, which then do so no more."""
        with self._changed:
            jobs = list(self._waiting)
            self._waiting.clear()
            return jobs

    def close(self) -> None:
        """Let all threads end; what they are writing is not finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
