"""The calculator's part in an answer: which tokens are put into it after the model has written a calculation.

A calculation is what stands between `python_start` and `python_end`. One that begins again begins anew; one
that never ends, an end without a beginning, and an expression without a value are text like any other. A
result stands between `output_start` and `output_end`, and ends early only where the answer does.
"""

from __future__ import annotations

from collections import deque

from nanochat.chat.calculator import calculate
from nanochat.tokenizer.tokenizer import Tokenizer


class Calls:
    """Reads one answer along, and knows which tokens are due in it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start, self._end = tokenizer.special("python_start"), tokenizer.special("python_end")
        self._expression: list[int] | None = None
        self._due: deque[int] = deque()

    def due(self) -> int | None:
        """Take the token that has to come next, if one has to."""
        return self._due.popleft() if self._due else None

    def wrote(self, token: int) -> None:
        """Read the token that the model wrote."""
        if token == self._start:
            self._expression = []
        elif token == self._end and self._expression is not None:
            self._answer(calculate(self._tokenizer.decode(self._expression)))
            self._expression = None
        elif self._expression is not None:
            self._expression.append(token)

    def _answer(self, result: str | None) -> None:
        if result is not None:
            special = self._tokenizer.special
            self._due += [special("output_start"), *self._tokenizer.encode(result), special("output_end")]
