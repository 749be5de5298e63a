"""What answers of all APIs have in common: one line of events after another, or one whole.

The forms themselves are `nanochat.serve.chat_form` and `nanochat.serve.completion_form`.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request, Response

from nanochat.serve.answering import Answers
from nanochat.serve.chat_answer import Answered, FinishReason, StopReason, Usage
from nanochat.serve.chat_request import Drawing
from nanochat.serve.event_stream import DONE, EventStream, unless_gone
from nanochat.serve.job_desk import Ending, News
from nanochat.serve.service import ServedModel
from nanochat.serve.usage import UsageCount

FINISHES: Final[dict[Ending, tuple[FinishReason, StopReason | None]]] = {
    "stop": ("stop", None),
    "tool_calls": ("tool_calls", None),
    "length": ("length", "max_tokens"),
    "context": ("length", "context"),
    "timeout": ("length", "timeout"),
    "cancelled": ("length", "timeout"),
}


class AnswerForm(ABC):
    """Turns what engines report of one request's answers into an API's form."""

    def __init__(
        self, body: Drawing, model: ServedModel, prompt_tokens: int, count: int, *, prefix: str
    ) -> None:
        self.id = f"{prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model
        self.wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._usage = UsageCount(prompt_tokens, count)

    async def respond(self, answers: Answers, request: Request, *, stream: bool | None) -> Response:
        """Return the answers once they are written, or a response that sends them while they are."""
        if stream:
            return EventStream(self._events(answers), answers)
        try:
            whole = await unless_gone(request, self._whole(answers))
        finally:
            answers.close()
        return Response(whole.line(), media_type="application/json")

    async def _events(self, answers: Answers) -> AsyncIterator[str]:
        """Yield the data of each event."""
        for line in self._opening():
            yield line
        async for some in answers.news():
            for number, news in some:
                self._usage.add(number, news)
                for line in self._lines(number, news):
                    yield line
        if self.wants_usage:
            yield self._usage_line(self._usage.total())
        yield DONE

    async def _whole(self, answers: Answers) -> Answered:
        """Return the answers once they have all ended."""
        async for some in answers.news():
            for number, news in some:
                self._usage.add(number, news)
                self._take_in(number, news)
        return self._all(self._usage.total())

    @abstractmethod
    def _opening(self) -> list[str]:
        """Return the events before anything is written."""

    @abstractmethod
    def _lines(self, number: int, news: News) -> list[str]:
        """Return the events for what is new of one answer."""

    @abstractmethod
    def _usage_line(self, usage: Usage) -> str:
        """Return the event that says what was used."""

    @abstractmethod
    def _take_in(self, number: int, news: News) -> None:
        """Keep what is new of one answer."""

    @abstractmethod
    def _all(self, usage: Usage) -> Answered:
        """Return what was kept."""
