"""Sorts the pieces of an answer: its text, and what the calculator was asked and returned in between.

A use of the calculator is reported when it is whole, text at once. Also the form in which APIs without a
place for the calculator show it, within the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nanochat.chat.pieces import Piece


@dataclass
class Use:
    """One use of the calculator."""

    expression: str
    offset: int
    """Characters of text before it."""
    result: str | None = None


@dataclass(frozen=True)
class Asked:
    """The calculator was asked for this."""

    index: int
    expression: str


@dataclass(frozen=True)
class Returned:
    """The calculator returned this."""

    index: int
    result: str


Told = str | Asked | Returned


class AnswerReader:
    """Takes in the pieces of one answer."""

    def __init__(self) -> None:
        self.text = ""
        self.uses: list[Use] = []
        self._part = ""  # of an expression or a result that may go on
        self._kind = "text"

    def read(self, pieces: Iterable[Piece], *, last: bool) -> list[Told]:
        """Return what has become known; `last`: nothing follows."""
        told: list[Told] = []
        for piece in pieces:
            if piece.first or piece.kind != self._kind:
                told += self._whole()
            self._kind = piece.kind
            if piece.kind == "text":
                self.text += piece.text
                told.append(piece.text)
            else:
                self._part += piece.text
        return told + self._whole() if last else told

    def _whole(self) -> list[Told]:
        """Return the expression or result that has ended."""
        part, self._part = self._part, ""
        kind, self._kind = self._kind, "text"
        if kind == "expression":
            self.uses.append(Use(part, len(self.text)))
            return [Asked(len(self.uses) - 1, part)]
        if kind == "result":
            unasked = not self.uses or self.uses[-1].result is not None
            if unasked:
                self.uses.append(Use("", len(self.text)))
            self.uses[-1].result = part
            index = len(self.uses) - 1
            return [*([Asked(index, "")] if unasked else []), Returned(index, part)]
        return []


class InlineReader:
    """Takes in the pieces of one answer, and has the calculator's part in the text: `[3+4 = 7] `."""

    def __init__(self) -> None:
        self._reader = AnswerReader()
        self._asked: Use | None = None
        self._insertions: list[tuple[int, int]] = []  # characters of text before, and of the insertion

    @property
    def chars(self) -> int:
        """Return how many characters of the model's own text have been read."""
        return len(self._reader.text)

    def place(self, offset: int) -> int:
        """Return where in all of the text a character of the model's own stands."""
        return offset + sum(chars for before, chars in self._insertions if before <= offset)

    def read(self, pieces: Iterable[Piece], *, last: bool) -> str:
        """Return the text that follows."""
        text = ""
        for one in self._reader.read(pieces, last=last):
            if isinstance(one, Returned):
                text += self._inserted(f" = {one.result}")
                continue
            text += self._inserted("")
            if isinstance(one, Asked):
                self._asked = self._reader.uses[one.index]
            else:
                text += one
        return text + self._inserted("") if last else text

    def _inserted(self, result: str) -> str:
        """Return what the calculator was asked, and what it returned."""
        if self._asked is None:
            return ""
        use, self._asked = self._asked, None
        text = f"[{use.expression}{result}] "
        self._insertions.append((use.offset, len(text)))
        return text
