"""Tokens and their log-probabilities in the forms of the APIs: only those of the text.

What the calculator was asked and returned is not text, and its tokens are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from nanochat.chat.request import TokenLogprobs
from nanochat.serve.chat_answer import ChatLogprobs, LikelyToken, TokenProbability
from nanochat.serve.completion_answer import CompletionLogprobs
from nanochat.tokenizer.tokenizer import Tokenizer

_LOWEST: Final = -9999.0  # for a token that cannot be drawn: JSON has no infinity, and the API writes it so


class ShownTokens:
    """Holds back the tokens of one answer until the text that they begin in is shown.

    Those of a stop string never are.
    """

    def __init__(self) -> None:
        self._held: deque[TokenLogprobs] = deque()

    def until(self, chars: int, new: Sequence[TokenLogprobs]) -> list[TokenLogprobs]:
        """Take in the next tokens; return those that begin in the first `chars` characters of the text."""
        self._held += [one for one in new if one.offset is not None]
        shown = []
        while self._held and (self._held[0].offset or 0) < chars:
            shown.append(self._held.popleft())
        return shown


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprobs]) -> ChatLogprobs:
    """Return tokens in the form that a conversation has them."""

    def line(token: int, logprob: float) -> LikelyToken:
        raw = tokenizer.decode_bytes([token])
        return LikelyToken(token=_text(raw), logprob=max(logprob, _LOWEST), bytes=list(raw))

    content = [
        TokenProbability(
            **line(one.token, one.logprob).model_dump(),
            top_logprobs=[line(token, logprob) for token, logprob in one.top],
        )
        for one in tokens
    ]
    return ChatLogprobs(content=content, refusal=None)


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[TokenLogprobs], place: Callable[[int], int], *, with_top: bool
) -> CompletionLogprobs:
    """Return tokens in the form that a text has them; `place` knows where in it a character stands."""

    def name(token: int) -> str:
        return _text(tokenizer.decode_bytes([token]))

    top = [{name(token): max(logprob, _LOWEST) for token, logprob in one.top} for one in tokens]
    return CompletionLogprobs(
        tokens=[name(one.token) for one in tokens],
        token_logprobs=[max(one.logprob, _LOWEST) for one in tokens],
        top_logprobs=top if with_top else None,
        text_offset=[place(one.offset or 0) for one in tokens],
    )


def _text(raw: bytes) -> str:
    """Return a token's text; of one that is part of a character its bytes, so that no two look alike."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
