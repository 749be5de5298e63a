"""Makes the batches of the next steps on a thread of its own, so that the training loop finds them ready.

A batch is a pure function of its step, so what is made ahead is what would be made on demand: nothing
depends on how far ahead the thread is, and a restart asks for its own first step. Memory is bounded by
the number of batches ahead. Where batches come from and where they go does not matter here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.2  # how late a wait may notice that the run was asked to stop


class Prefetch(Generic[T]):
    """Calls like the function it wraps, and has the results of the next steps ready.

    Use it as a context manager, or call `close`. Only one thread may call it.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        steps: int,
        *,
        ahead: int = 4,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Wrap `make` for steps below `steps`.

        `ahead` results are made before they are asked for. `check_stop` is called while one is waited for
        and may raise.
        """
        self._make, self._steps, self._depth, self._check_stop = make, steps, max(ahead, 1), check_stop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._pending: deque[tuple[int, Future[T]]] = deque()
        self.wait_s = 0.0
        """Seconds that callers have waited."""

    def __call__(self, step: int) -> T:
        """Return `make(step)`, or raise what it raised; asking for a step other than the next starts anew."""
        if not 0 <= step < self._steps:
            raise IndexError(f"step {step} of {self._steps}")
        if not self._pending or self._pending[0][0] != step:
            self._cancel()
        self._fill(step)
        _, future = self._pending.popleft()
        started = time.perf_counter()
        try:
            result = self._wait(future)
        finally:
            self.wait_s += time.perf_counter() - started
        self._fill(step + 1)
        return result

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is ahead and end the thread once it has finished what it is doing."""
        self._cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _wait(self, future: Future[T]) -> T:
        while not wait([future], _LOOK_S).done:
            self._check_stop()
        return future.result()

    def _fill(self, first: int) -> None:
        """Have the results from `first` on under way."""
        begin = self._pending[-1][0] + 1 if self._pending else first
        for step in range(begin, min(first + self._depth, self._steps)):
            self._pending.append((step, self._thread.submit(self._make, step)))

    def _cancel(self) -> None:
        while self._pending:
            self._pending.popleft()[1].cancel()
