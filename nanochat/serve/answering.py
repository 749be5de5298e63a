"""The answers to one request while they are written: asks the engines, yields what is new, gives up in time.

On the event loop. Not here: how a request becomes tokens, how answers are sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

from nanochat.chat.pieces import Piece
from nanochat.config import Sampling
from nanochat.errors import NanochatError
from nanochat.serve.api_errors import ApiError, bad_request, refused
from nanochat.serve.job_desk import AnswerJob, News, NoEngine, QueueFull
from nanochat.serve.serve_metrics import Outcome
from nanochat.serve.service import Service

_log = logging.getLogger(__name__)


class Answers:
    """Answers that were asked for together, each with its number."""

    def __init__(
        self,
        service: Service,
        asked: Sequence[tuple[Sequence[int], Sampling]],
        *,
        end_at_call: bool = False,
    ) -> None:
        """Queue them; raise ApiError where there is no place for them. `close` must follow."""
        self._service = service
        self._began = time.monotonic()
        self._outcome: Outcome | None = None  # until it is closed
        self._news: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        self._jobs = [
            AnswerJob(tuple(prompt), sampling, self._deliver_as(number), end_at_call)
            for number, (prompt, sampling) in enumerate(asked)
        ]
        self._unfinished = dict(enumerate(self._jobs))
        self._tokens = dict.fromkeys(self._unfinished, 0)
        self._held: dict[int, tuple[Piece, ...]] = {}
        self._first: dict[int, float] = {}
        try:
            service.desk.put(self._jobs)
        except QueueFull:
            service.metrics.ended("refused", 0)
            raise ApiError(
                429,
                f"all places are taken, and {service.desk.waiting} answers are waiting; try again soon",
                code="queue_full",
                headers={"retry-after": "1"},
            ) from None
        except NoEngine as error:
            service.metrics.ended("refused", 0)
            raise self._failed(error) from None

    @property
    def longest_s(self) -> float:
        """Return after how long a client that reads slowly is cut off: answers have ended long before."""
        return 2 * self._service.settings.timeout_s

    def _deliver_as(self, number: int) -> Callable[[News], None]:
        return lambda news: self._news.put_nowait((number, news))

    async def news(self) -> AsyncIterator[list[tuple[int, News]]]:
        """Yield what is new, all that there is at once, until every answer has ended.

        An answer that has begun ends as it is when the time is over. Raises ApiError where one failed, or
        has not begun in time.
        """
        while self._unfinished:
            some = await self._next()
            for number, news in some:
                if news.error is not None:
                    self._outcome = "failed"
                    raise self._failed(news.error) from news.error
                self._note(number, news)
            yield some
        self._outcome = self._outcome or "finished"

    async def _next(self) -> list[tuple[int, News]]:
        try:
            async with asyncio.timeout(self._began + self._service.settings.timeout_s - time.monotonic()):
                some = [await self._news.get()]
        except TimeoutError:
            return self._run_out()
        while not self._news.empty():
            some.append(self._news.get_nowait())
        return some

    def _note(self, number: int, news: News) -> None:
        """Keep count of what is new of an answer."""
        metrics, now = self._service.metrics, time.monotonic()
        metrics.tokens(news.tokens - self._tokens[number])
        if news.tokens and number not in self._first:
            self._first[number] = now
            metrics.first_token(now - self._began)
            metrics.prompt(len(self._jobs[number].prompt), news.reused)
        self._tokens[number], self._held[number] = news.tokens, news.held
        if news.last:
            metrics.answer(news.tokens, now - self._first.get(number, now))
            del self._unfinished[number]

    def _run_out(self) -> list[tuple[int, News]]:
        self._outcome = "timeout"
        if not all(self._tokens[number] for number in self._unfinished):
            raise ApiError(
                503,
                f"the answer had not begun after {self._service.settings.timeout_s:g} s",
                code="timeout",
                headers={"retry-after": "10"},
            )
        self._service.desk.cancel(list(self._unfinished.values()))
        return [
            (n, News(pieces=self._held[n], tokens=self._tokens[n], ending="timeout"))
            for n in self._unfinished
        ]

    def close(self) -> None:
        """Give up what is not finished; does nothing the second time."""
        if self._jobs:
            self._service.desk.cancel(list(self._unfinished.values()))
            self._service.metrics.ended(self._outcome or "cancelled", time.monotonic() - self._began)
            self._jobs = []

    def _failed(self, error: Exception) -> ApiError:
        """Return what the client is to read of an error."""
        if isinstance(error, NoEngine):
            if self._service.state == "stopping":
                return ApiError(503, "the server ended before the answer was finished", code="stopping")
            return ApiError(503, "no engine runs any more; the server must be restarted", code="no_engine")
        if isinstance(error, NanochatError):
            return refused(error)
        if isinstance(error, ValueError):
            return bad_request(str(error))
        return ApiError(500, f"the engine failed with {type(error).__name__}", code="engine_failed")
