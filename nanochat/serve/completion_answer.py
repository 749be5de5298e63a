"""The form of texts that were gone on with, whole and as chunks: OpenAI's."""

from __future__ import annotations

from typing import Literal

from nanochat.serve.chat_answer import Answered, FinishReason, StopReason, Usage


class CompletionLogprobs(Answered):
    """The tokens of a text, each list with one entry for each."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(Answered):
    """One text, or what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: StopReason | None = None


class CompletionAnswer(Answered):
    """All texts of a request, or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
