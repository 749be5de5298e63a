"""Answers in a conversation in OpenAI's form: messages with tool calls, or with the calculator's part."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field

from nanochat.chat.request import TokenLogprobs
from nanochat.serve.answer_form import FINISHES, AnswerForm
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
    FunctionCall,
    Usage,
)
from nanochat.serve.chat_prompt import PARAMETER, TOOL
from nanochat.serve.chat_request import ChatRequest
from nanochat.serve.job_desk import Ending, News
from nanochat.serve.service import ServedModel
from nanochat.serve.token_lines import ShownTokens, chat_logprobs


@dataclass
class _Answer:
    """What is known of one answer."""

    tokens: ShownTokens = field(default_factory=ShownTokens)
    reader: AnswerReader = field(default_factory=AnswerReader)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    last: News = field(default_factory=News)

    def shown(self, news: News) -> list[TokenLogprobs]:
        """Return the tokens of the text that was read."""
        return self.tokens.until(len(self.reader.text), news.logprobs)


class ChatForm(AnswerForm):
    """The answers to one chat request."""

    def __init__(self, body: ChatRequest, model: ServedModel, prompt_tokens: int) -> None:
        count = body.n or 1
        super().__init__(body, model, prompt_tokens, count, prefix="chatcmpl")
        self._with_logprobs = bool(body.logprobs)
        self._client_calculates = body.client_calculates
        self._answers = [_Answer() for _ in range(count)]

    def _opening(self) -> list[str]:
        first = AnswerMessage(role="assistant", content="", refusal=None)
        return [self._chunk(number, first) for number in range(len(self._answers))]

    def _lines(self, number: int, news: News) -> list[str]:
        answer = self._answers[number]
        deltas = [
            AnswerMessage(content=one) if isinstance(one, str) else AnswerMessage(calculator=_known(one))
            for one in self._told(answer, news)
        ]
        if news.call is not None:
            deltas.append(AnswerMessage(tool_calls=[_called(news.call, index=0)]))
        tokens = answer.shown(news) if self._with_logprobs else []
        if tokens and not deltas:
            deltas.append(AnswerMessage(content=""))
        lines = [
            self._chunk(number, delta, logprobs=self._logprobs(tokens) if tokens and not at else None)
            for at, delta in enumerate(deltas)
        ]
        if news.ending is not None:
            lines.append(self._chunk(number, AnswerMessage(), ending=news.ending))
        return lines

    def _told(self, answer: _Answer, news: News) -> list[Told]:
        told = answer.reader.read(news.pieces, last=news.last)
        return [one for one in told if isinstance(one, str)] if self._client_calculates else told

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
        return self._chunk_of([choice], None)

    def _chunk_of(self, choices: list[ChunkChoice], usage: Usage | None) -> str:
        chunk = ChatChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model.id,
            choices=choices,
        )
        if self.wants_usage:
            chunk.usage = usage
        return chunk.line()

    def _usage_line(self, usage: Usage) -> str:
        return self._chunk_of([], usage)

    def _take_in(self, number: int, news: News) -> None:
        answer = self._answers[number]
        answer.reader.read(news.pieces, last=news.last)
        answer.logprobs += answer.shown(news)
        answer.last = news

    def _all(self, usage: Usage) -> ChatAnswer:
        return ChatAnswer(
            id=self.id,
            object="chat.completion",
            created=self.created,
            model=self.model.id,
            choices=[self._choice(number, answer) for number, answer in enumerate(self._answers)],
            usage=usage,
        )

    def _choice(self, number: int, answer: _Answer) -> ChatChoice:
        reader, call = answer.reader, answer.last.call
        message = AnswerMessage(role="assistant", content=reader.text, refusal=None)
        if call is not None:
            message.content = reader.text or None
            message.tool_calls = [_called(call)]
        elif reader.uses and not self._client_calculates:
            message.calculator = [
                CalculatorPart(expression=use.expression, result=use.result, offset=use.offset)
                for use in reader.uses
            ]
        finish, reason = FINISHES[answer.last.ending or "cancelled"]
        return ChatChoice(
            index=number,
            message=message,
            logprobs=self._logprobs(answer.logprobs) if self._with_logprobs else None,
            finish_reason=finish,
            stop_reason=reason,
        )

    def _logprobs(self, tokens: list[TokenLogprobs]) -> ChatLogprobs:
        return chat_logprobs(self.model.tokenizer, tokens)


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
