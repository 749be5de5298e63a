"""`POST /v1/chat/completions`: the next answer in a conversation, whole or as it is written."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final

from fastapi import APIRouter, Request, Response

from nanochat.chat.engine import TokenLogprobs
from nanochat.serve.answering import Answers
from nanochat.serve.api_errors import bad_request
from nanochat.serve.asking import check_choices, check_fits, check_model, samplings
from nanochat.serve.calculator_uses import AnswerReader, Asked, Returned, Told
from nanochat.serve.chat_answer import (
    AnswerCall,
    AnswerMessage,
    CalculatorPart,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChunkChoice,
    FinishReason,
    FunctionCall,
    StopReason,
    Usage,
)
from nanochat.serve.chat_prompt import PARAMETER, TOOL, chat_prompt
from nanochat.serve.chat_request import ChatRequest
from nanochat.serve.event_stream import DONE, EventStream, unless_gone
from nanochat.serve.job_desk import Ending, News
from nanochat.serve.service import ServedModel, Service
from nanochat.serve.token_lines import chat_logprobs
from nanochat.serve.usage import UsageCount

FINISHES: Final[dict[Ending, tuple[FinishReason, StopReason | None]]] = {
    "stop": ("stop", None),
    "tool_calls": ("tool_calls", None),
    "length": ("length", "max_tokens"),
    "context": ("length", "context"),
    "timeout": ("length", "timeout"),
    "cancelled": ("length", "timeout"),
}


def chat_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        model = service.model
        check_model(body, model)
        _check_unsupported(body)
        limits = service.settings.limits
        count = body.n or 1
        check_choices(count, limits)
        drawn = samplings(body, limits, max_tokens=_max_tokens(body), logprobs=_logprobs(body), count=count)
        prompt = chat_prompt(model.tokenizer, body.messages, limits)
        check_fits(prompt, model, "messages")
        answers = Answers(
            service, [(prompt, sampling) for sampling in drawn], end_at_call=_client_calculates(body)
        )
        answer = _ChatStream(body, model, len(prompt), count)
        if body.stream:
            return EventStream(answer.events(answers), longest_s=service.settings.longest_s)
        whole = await unless_gone(request, answer.whole(answers))
        return Response(whole.line(), media_type="application/json")

    return router


def _max_tokens(body: ChatRequest) -> int | None:
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise bad_request(
            f"max_tokens is {body.max_tokens} and max_completion_tokens {body.max_completion_tokens};"
            " they mean the same",
            "max_tokens",
        )
    return body.max_completion_tokens if body.max_tokens is None else body.max_tokens


def _logprobs(body: ChatRequest) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return body.top_logprobs or 0 if body.logprobs else None


def _client_calculates(body: ChatRequest) -> bool:
    return bool(body.tools) and body.tool_choice != "none"


def _check_unsupported(body: ChatRequest) -> None:
    for number, tool in enumerate(body.tools or ()):
        parameters = (tool.function.parameters or {}).get("properties", {})
        if tool.function.name != TOOL or not isinstance(parameters, dict) or PARAMETER not in parameters:
            raise bad_request(
                f"tool {number} is {tool.function.name[:80]!r}; the model can use one named {TOOL!r} with a"
                f" parameter {PARAMETER!r}",
                f"tools[{number}]",
            )
    if body.tool_choice not in (None, "auto", "none"):
        raise bad_request(
            "tool_choice can be auto or none: the model decides when it calculates", "tool_choice"
        )
    if (body.response_format or {}).get("type", "text") != "text":
        raise bad_request("response_format can be of type text only", "response_format")
    if body.modalities not in (None, ["text"]):
        raise bad_request("modalities can be text only", "modalities")


class _ChatStream:
    """Turns what engines report into the API's form."""

    def __init__(self, body: ChatRequest, model: ServedModel, prompt_tokens: int, count: int) -> None:
        self._body = body
        self._model = model
        self._readers = [AnswerReader() for _ in range(count)]
        self._client_calculates = _client_calculates(body)
        self._usage = UsageCount(prompt_tokens, count)
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def events(self, answers: Answers) -> AsyncIterator[str]:
        """Yield the data of each event."""
        try:
            for number in range(len(self._readers)):
                delta = AnswerMessage(role="assistant", content="", refusal=None)
                yield self._chunk(number, delta)
            async for some in answers.news():
                for number, news in some:
                    for line in self._lines(number, news):
                        yield line
            if self._wants_usage:
                yield self._chunk_of([], self._usage.total())
            yield DONE
        finally:
            answers.close()

    async def whole(self, answers: Answers) -> ChatAnswer:
        """Return the answers once they have all ended."""
        count = len(self._readers)
        lasts: list[News] = [News()] * count
        probabilities: list[list[TokenLogprobs]] = [[] for _ in range(count)]
        try:
            async for some in answers.news():
                for number, news in some:
                    self._take_in(number, news)
                    lasts[number] = news
                    probabilities[number] += news.logprobs
        finally:
            answers.close()
        choices = [self._choice(n, lasts[n], probabilities[n]) for n in range(count)]
        return ChatAnswer(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model.id,
            choices=choices,
            usage=self._usage.total(),
        )

    def _take_in(self, number: int, news: News) -> list[Told]:
        self._usage.add(number, news)
        told = self._readers[number].read(news.pieces, last=news.last)
        return [one for one in told if isinstance(one, str)] if self._client_calculates else told

    def _choice(self, number: int, last: News, probabilities: Sequence[TokenLogprobs]) -> ChatChoice:
        reader = self._readers[number]
        message = AnswerMessage(role="assistant", content=reader.text, refusal=None)
        if last.call is not None:
            message.tool_calls = [_called(last.call)]
            message.content = reader.text or None
        elif reader.uses and not self._client_calculates:
            message.calculator = [
                CalculatorPart(expression=use.expression, result=use.result, offset=use.offset)
                for use in reader.uses
            ]
        finish, reason = FINISHES[last.ending or "cancelled"]
        return ChatChoice(
            index=number,
            message=message,
            logprobs=self._told_logprobs(probabilities),
            finish_reason=finish,
            stop_reason=reason,
        )

    def _lines(self, number: int, news: News) -> list[str]:
        """Return the events for what is new of one answer."""
        told = self._take_in(number, news)
        deltas = [
            AnswerMessage(content=one) if isinstance(one, str) else AnswerMessage(calculator=_known(one))
            for one in told
        ]
        if news.call is not None:
            deltas.append(AnswerMessage(tool_calls=[_called(news.call, index=0)]))
        if news.logprobs and self._body.logprobs and not deltas:
            deltas.append(AnswerMessage(content=""))
        lines = [
            self._chunk(number, delta, logprobs=self._told_logprobs(news.logprobs) if not at else None)
            for at, delta in enumerate(deltas)
        ]
        if news.ending is not None:
            lines.append(self._chunk(number, AnswerMessage(), ending=news.ending))
        return lines

    def _chunk(
        self,
        number: int,
        delta: AnswerMessage,
        *,
        logprobs: ChatLogprobs | None = None,
        ending: Ending | None = None,
    ) -> str:
        finish, reason = FINISHES[ending] if ending else (None, None)
        choice = ChunkChoice(index=number, delta=delta, logprobs=logprobs, finish_reason=finish)
        if reason:
            choice.stop_reason = reason
        return self._chunk_of([choice])

    def _chunk_of(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        chunk = ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model.id,
            choices=choices,
        )
        if self._wants_usage:
            chunk.usage = usage
        return chunk.line()

    def _told_logprobs(self, probabilities: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        return chat_logprobs(self._model.tokenizer, probabilities)


def _known(one: Asked | Returned) -> CalculatorPart:
    if isinstance(one, Asked):
        return CalculatorPart(index=one.index, expression=one.expression)
    return CalculatorPart(index=one.index, result=one.result)


def _called(expression: str, index: int | None = None) -> AnswerCall:
    function = FunctionCall(name=TOOL, arguments=json.dumps({PARAMETER: expression}, ensure_ascii=False))
    call = AnswerCall(id=f"call_{uuid.uuid4().hex[:24]}", type="function", function=function)
    if index is not None:
        call.index = index
    return call
