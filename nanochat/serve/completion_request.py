"""What a request to go on with a text may hold, in OpenAI's form with a few fields more."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nanochat.serve.chat_request import Drawing, Flag, Int

# Of any size: a number that is not of the vocabulary is refused as a token, with the size of the vocabulary.
Token = Annotated[int, Field(strict=True)]


class CompletionRequest(Drawing):
    """A request to go on with texts, or with tokens."""

    prompt: str | list[str] | list[Token] | list[list[Token]]
    logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    echo: Flag | None = None
    best_of: Int | None = None
    suffix: str | None = None
