"""The thread that owns an engine: begins jobs, lets the engine step, hands what is new to the event loop.

A job that was cancelled leaves the engine before its next step. A step that fails ends the answers that it
was to go on with, and the next ones get a new engine; an engine whose every step fails is given up. Not here:
which jobs come when (`nanochat.serve.job_desk`), what is made of an answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nanochat.chat.request import Request
from nanochat.serve.job_desk import AnswerJob, JobDesk, News, NoEngine

if TYPE_CHECKING:  # what answers while a model is loaded must not wait for torch
    from nanochat.chat.engine import Engine, Written

_log = logging.getLogger(__name__)

CallSoon = Callable[[Callable[[], None]], object]
"""Has something called soon on the event loop's thread."""
_FAILED_STEPS: Final = 3  # one after another, before an engine is given up


class EngineThread:
    """One engine and its thread."""

    def __init__(self, number: int, make: Callable[[], Engine], desk: JobDesk, call_soon: CallSoon) -> None:
        self._number = number
        self._make = make
        self._desk = desk
        self._call_soon = call_soon
        self.engine = make()
        self._jobs: dict[Request, AnswerJob] = {}
        self._news: list[tuple[AnswerJob, News]] = []
        self._seen: dict[Request, int] = {}  # tokens that were looked at for a call
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name=f"engine-{number}", daemon=True)

    def start(self) -> None:
        """Begin to take jobs from the desk."""
        self._desk.join(self._number)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the thread has ended, at the latest after `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._failed < _FAILED_STEPS and (jobs := self._desk.take(self._number)) is not None:
                self._turn(jobs)
        except Exception:
            _log.exception("engine %d has ended", self._number)
        for job in [*self._jobs.values(), *self._desk.leave(self._number)]:
            self._news.append((job, News(error=NoEngine())))
        self._hand_over()

    def _turn(self, jobs: list[AnswerJob]) -> None:
        for job in jobs:
            self._begin(job)
        for request, job in list(self._jobs.items()):
            if job.cancelled:
                self.engine.cancel(request)
                self._end(request)
        if self._jobs:
            self._step()
        self._hand_over()

    def _begin(self, job: AnswerJob) -> None:
        try:
            request = self.engine.submit(job.prompt, job.sampling)
        except Exception as error:
            _log.debug("a request was refused", exc_info=True)
            self._news.append((job, News(error=error)))
            self._desk.done(self._number)
        else:
            self._jobs[request] = job

    def _step(self) -> None:
        try:
            written = self.engine.step()
        except Exception as error:
            _log.exception("a step of engine %d failed; %d answers end", self._number, len(self._jobs))
            self._failed += 1
            for request, job in list(self._jobs.items()):
                self._news.append((job, News(error=error)))
                self._end(request)
            self.engine = self._make()
            return
        self._failed = 0
        for one in written:
            if one.request in self._jobs:
                self._take_in(one)

    def _take_in(self, written: Written) -> None:
        request = written.request
        job = self._jobs[request]
        ending = request.finish
        call = self._call(request) if job.ends_at_call else None
        if call is not None:
            self.engine.cancel(request)
        news = News(
            pieces=written.pieces if call is None else (*written.pieces, *written.held),
            held=written.held,
            logprobs=written.logprobs,
            tokens=len(request.tokens),
            reused=request.reused_tokens,
            ending="tool_calls" if call is not None else ending,
            call=call,
            engine=self._number,
        )
        self._news.append((job, news))
        if news.last:
            self._end(request)

    def _call(self, request: Request) -> str | None:
        """Return the calculation that the model has written since the last look."""
        tokenizer, tokens = self.engine.tokenizer, request.tokens
        start, end = (tokenizer.special(name) for name in ("python_start", "python_end"))
        seen, self._seen[request] = self._seen.get(request, 0), len(tokens)
        if end not in tokens[seen:]:
            return None
        before = tokens[: tokens.index(end, seen)]
        if start not in before:
            return None
        return tokenizer.decode(before[len(before) - before[::-1].index(start) :])

    def _end(self, request: Request) -> None:
        del self._jobs[request]
        self._seen.pop(request, None)
        self._desk.done(self._number)

    def _hand_over(self) -> None:
        news, self._news = self._news, []
        if not news:
            return

        def deliver() -> None:
            for job, one in news:
                job.deliver(one)

        try:
            self._call_soon(deliver)
        except RuntimeError:  # the event loop is closed, so nobody waits any more
            _log.debug("nobody waits for %d answers", len(news))
