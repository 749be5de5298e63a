"""Tokens and their log-probabilities in the forms of the APIs: only those of the text.

What the calculator was asked and returned is not text, and its tokens are left out.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Final

from nanochat.chat.request import TokenLogprobs
from nanochat.serve.chat_answer import ChatLogprobs, LikelyToken, TokenProbability
from nanochat.serve.completion_answer import CompletionLogprobs
from nanochat.tokenizer.tokenizer import Tokenizer

_LOWEST: Final = -9999.0  # for a token that cannot be drawn: JSON has no infinity, and the API writes it so


class TextTokens:
    """Tells the tokens of one answer's text from those of the calculator."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._begin = {tokenizer.special(name) for name in ("python_start", "output_start")}
        self._end = {tokenizer.special(name) for name in ("python_end", "output_end")}
        self._inside = False

    def among(self, tokens: Sequence[TokenLogprobs]) -> list[TokenLogprobs]:
        """Return those of the text among the next tokens."""
        found = []
        for one in tokens:
            if one.token in self._begin or one.token in self._end:
                self._inside = one.token in self._begin
            elif not self._inside:
                found.append(one)
        return found


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


class CompletionTokens:
    """The tokens of one text that was gone on with, and where each begins."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text_tokens = TextTokens(tokenizer)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._chars = 0

    def lines(self, new: Sequence[TokenLogprobs], inserted: int, *, with_top: bool) -> CompletionLogprobs:
        """Return the next tokens; `inserted` characters before them come from the calculator."""
        tokens = self._text_tokens.among(new)
        names, offsets = [], []
        for one in tokens:
            raw = self._tokenizer.decode_bytes([one.token])
            names.append(_text(raw))
            offsets.append(self._chars + inserted)
            self._chars += len(self._decoder.decode(raw))
        top = [{self._name(token): max(logprob, _LOWEST) for token, logprob in one.top} for one in tokens]
        return CompletionLogprobs(
            tokens=names,
            token_logprobs=[max(one.logprob, _LOWEST) for one in tokens],
            top_logprobs=top if with_top else None,
            text_offset=offsets,
        )

    def _name(self, token: int) -> str:
        return _text(self._tokenizer.decode_bytes([token]))


def _text(raw: bytes) -> str:
    """Return a token's text; of one that is part of a character its bytes, so that no two look alike."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
