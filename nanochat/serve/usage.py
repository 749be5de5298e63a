"""What a request took: tokens of its prompts and answers, and those that were not read again."""

from __future__ import annotations

from nanochat.serve.chat_answer import CachedTokens, Usage
from nanochat.serve.job_desk import News


class UsageCount:
    """Adds up the tokens of one request."""

    def __init__(self, prompt_tokens: int, count: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._written = [0] * count
        self._reused = 0

    def add(self, number: int, news: News) -> None:
        """Take in what is new of an answer."""
        self._written[number] = news.tokens or self._written[number]
        if not number:  # a prompt counts once, and the answers after the first may read what it read
            self._reused = news.reused or self._reused

    def total(self) -> Usage:
        """Return all of it."""
        written = sum(self._written)
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=written,
            total_tokens=self._prompt_tokens + written,
            prompt_tokens_details=CachedTokens(cached_tokens=self._reused),
        )
