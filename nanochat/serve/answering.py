"""The answers to one request while they are written: asks the engines, yields what is new, gives up in time.

On the event loop. Not here: how a request becomes tokens, how answers are sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from nanochat.config import Sampling
from nanochat.errors import NanochatError
from nanochat.serve.api_errors import ApiError, refused
from nanochat.serve.job_desk import AnswerJob, News, NoEngine, QueueFull
from nanochat.serve.service import Service


class Answers:
    """Answers that were asked for together, each with its number."""

    def __init__(
        self,
        service: Service,
        asked: Sequence[tuple[Sequence[int], Sampling]],
        *,
        end_at_call: bool = False,
    ) -> None:
        """Queue them; raise ApiError where there is no place for them."""
        self._service = service
        self._deadline = time.monotonic() + service.settings.timeout_s
        self._news: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        self._jobs = [
            AnswerJob(tuple(prompt), sampling, self._deliver_as(number), end_at_call)
            for number, (prompt, sampling) in enumerate(asked)
        ]
        self._unfinished = dict(enumerate(self._jobs))
        self._tokens = dict.fromkeys(self._unfinished, 0)
        try:
            service.desk.put(self._jobs)
        except QueueFull:
            raise ApiError(
                429,
                f"all places are taken, and {service.desk.waiting} answers are waiting; try again soon",
                code="queue_full",
                headers={"retry-after": "1"},
            ) from None
        except NoEngine as error:
            raise _failed(error) from None

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
                    raise _failed(news.error) from news.error
                self._tokens[number] = news.tokens
                if news.last:
                    del self._unfinished[number]
            yield some

    async def _next(self) -> list[tuple[int, News]]:
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                some = [await self._news.get()]
        except TimeoutError:
            return self._run_out()
        while not self._news.empty():
            some.append(self._news.get_nowait())
        return some

    def _run_out(self) -> list[tuple[int, News]]:
        if not all(self._tokens[number] for number in self._unfinished):
            raise ApiError(
                503,
                f"the answer had not begun after {self._service.settings.timeout_s:g} s",
                code="timeout",
                headers={"retry-after": "10"},
            )
        self.close()
        return [(n, News(tokens=self._tokens[n], ending="timeout")) for n in self._unfinished]

    def close(self) -> None:
        """Give up what is not finished."""
        self._service.desk.cancel(list(self._unfinished.values()))


def _failed(error: Exception) -> ApiError:
    if isinstance(error, NoEngine):
        return ApiError(
            503, "no engine is running any more; the server must be started again", code="no_engine"
        )
    if isinstance(error, NanochatError | ValueError):
        return refused(error) if isinstance(error, NanochatError) else ApiError(400, str(error))
    return ApiError(500, f"the engine failed with {type(error).__name__}", code="engine_failed")
