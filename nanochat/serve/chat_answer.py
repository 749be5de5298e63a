"""The form of answers in a conversation, whole and as chunks: OpenAI's, with the calculator's part.

Only fields that were given a value are written, null included.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length", "tool_calls"]
StopReason = Literal["max_tokens", "context", "timeout"]


class Answered(BaseModel):
    """Part of an answer."""

    def line(self) -> str:
        """Return it as JSON on one line, in ASCII: some readers of streams end lines at rarer characters."""
        return self.model_dump_json(exclude_unset=True, ensure_ascii=True)


class CachedTokens(Answered):
    """Tokens of the prompt that were not read again."""

    cached_tokens: int


class Usage(Answered):
    """What a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class LikelyToken(Answered):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenProbability(LikelyToken):
    """A token that was written, and the likeliest in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(Answered):
    """The tokens of an answer."""

    content: list[TokenProbability]
    refusal: None


class FunctionCall(Answered):
    """A call of a function."""

    name: str
    arguments: str


class AnswerCall(Answered):
    """A tool that the client is to use; `index` only in a stream."""

    index: int | None = None
    id: str
    type: Literal["function"]
    function: FunctionCall


class CalculatorPart(Answered):
    """A use of the calculator: all of it in a whole answer, in a stream what has become known."""

    index: int | None = None
    expression: str | None = None
    result: str | None = None
    offset: int | None = None


class AnswerMessage(Answered):
    """The message of a whole answer, or what is new of it."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[AnswerCall] | None = None
    calculator: list[CalculatorPart] | CalculatorPart | None = None


class ChatChoice(Answered):
    """One whole answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason
    stop_reason: StopReason | None = None


class ChatAnswer(Answered):
    """All answers to a request."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(Answered):
    """What is new of one answer."""

    index: int
    delta: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    stop_reason: StopReason | None = None


class ChatChunk(Answered):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
