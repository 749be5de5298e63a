"""What is asked of an engine and what it returns: requests, and what the model thought of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nanochat.config import Sampling

Finish = Literal["stop", "length", "context", "cancelled"]
"""Why an answer ended: by itself or at a stop string, at its limit, at the context's, on request."""


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability of a written token, and the likeliest tokens in its place, likeliest first.

    They are the model's own: before temperature, penalty and filters. Tokens that the calculator returned are
    not the model's choice and have none.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    offset: int | None = None
    """Characters of the answer's text before the token; None: it is not of the text but of a calculation."""


@dataclass(eq=False)
class Request:
    """One answer to be written, and what is known of it so far."""

    prompt: tuple[int, ...]
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    """Written so far, what the calculator returned among them; without the token that ends the answer.

    Those of a stop string are among them, since one may begin and end inside a token: a next turn encodes the
    text that was shown, and what is the same up to the stop string is not read again.
    """
    finish: Finish | None = None
    reused_tokens: int = 0
    """Of the prompt, those that were not read again because an earlier text began with them."""
