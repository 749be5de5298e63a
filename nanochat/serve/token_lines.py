"""Tokens and their log-probabilities in the API's form."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.chat.engine import TokenLogprobs
from nanochat.serve.chat_answer import ChatLogprobs, LikelyToken, TokenProbability
from nanochat.tokenizer.tokenizer import Tokenizer


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprobs]) -> ChatLogprobs:
    """Return the tokens of an answer, or of some of it."""
    content = [
        TokenProbability(
            **_token(tokenizer, one.token, one.logprob).model_dump(),
            top_logprobs=[_token(tokenizer, token, logprob) for token, logprob in one.top],
        )
        for one in tokens
    ]
    return ChatLogprobs(content=content, refusal=None)


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> LikelyToken:
    raw = tokenizer.decode_bytes([token])
    text = raw.decode("utf-8", errors="replace")
    return LikelyToken(token=text, logprob=max(logprob, LOWEST), bytes=list(raw))


LOWEST = -9999.0
"""Stands for a token that cannot be drawn: JSON has no infinity, and the API writes it so."""
