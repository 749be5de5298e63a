"""What a request to go on with a text may hold, in OpenAI's form with a few fields more."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nanochat.serve.chat_request import Drawing, Flag, Int


class CompletionRequest(Drawing):
    """A request to go on with texts, or with tokens."""

    prompt: str | list[str] | list[Int] | list[list[Int]]
    logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    echo: Flag | None = None
    best_of: Int | None = None
    suffix: str | None = None
