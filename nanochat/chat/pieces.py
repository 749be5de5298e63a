"""From tokens to what a person reads: text, calculator expressions and their results, character by character.

A piece never ends inside a character, and text that may be the beginning of a stop string is held back until
it is known not to be. Not here: which tokens are written (`nanochat.chat.engine`), how pieces are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nanochat.tokenizer.tokenizer import Tokenizer

PieceKind = Literal["text", "expression", "result"]


@dataclass(frozen=True)
class Piece:
    """Some of an answer: text, or what the calculator was asked, or what it returned."""

    kind: PieceKind
    text: str
    first: bool = False
    """It begins a new expression or result; a result that goes on has further pieces without it."""


class PieceStream:
    """Turns the tokens of one answer into pieces as they come."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        """A stop string has come: nothing after its beginning is shown."""
        self.offset: int | None = None
        """Characters of text before the token that was pushed last; None where it is not of the text."""
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._changes: dict[int, PieceKind] = {
            tokenizer.special("python_start"): "expression",
            tokenizer.special("python_end"): "text",
            tokenizer.special("output_start"): "result",
            tokenizer.special("output_end"): "text",
        }
        self._kind: PieceKind = "text"
        self._coming: PieceKind | None = None
        self._first = False
        self._bytes = b""  # of a character that is not whole yet
        self._held = ""  # may be the beginning of a stop string
        self._chars = 0  # of text so far, what is held back among them

    def push(self, token: int) -> list[Piece]:
        """Return what a token completes."""
        self.offset = None
        if self.stopped:
            return []
        if token in self._changes:
            self._coming = self._changes[token]
            return []
        pieces = self._turn()
        new = self._tokenizer.decode_bytes([token])
        if self._kind == "text":
            self.offset = self._chars + (0 if _goes_on(new) else len(_text(self._bytes)))
        self._bytes += new
        whole = len(self._bytes) - _incomplete_tail(self._bytes)
        text, self._bytes = _text(self._bytes[:whole]), self._bytes[whole:]
        return pieces + self._shown(text)

    @property
    def held(self) -> list[Piece]:
        """Return what `flush` would, and go on holding it back."""
        text = self._held + _text(self._bytes)
        return [Piece(self._kind, text, self._first)] if text and not self.stopped else []

    def flush(self) -> list[Piece]:
        """Return what was held back, at the end of an answer; bytes that are not text become U+FFFD."""
        pieces = self.held
        if pieces:
            self._first = False
        if self._kind == "text":
            self._chars += len(_text(self._bytes))
        self._held, self._bytes = "", b""
        return pieces

    def _turn(self) -> list[Piece]:
        """Begin what the last special token announced, now that there is something of it.

        Text with nothing between goes on: characters and stop strings may span the special tokens.
        """
        coming, self._coming = self._coming, None
        if coming is None or coming == self._kind == "text":
            return []
        pieces = self.flush()
        self._kind, self._first = coming, coming != "text"
        return pieces

    def _shown(self, text: str) -> list[Piece]:
        if self._kind != "text":
            return self._piece(text)
        self._chars += len(text)
        text = self._held + text
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return self._piece(text[: min(found)])
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return self._piece(text[: len(text) - kept])

    def _piece(self, text: str) -> list[Piece]:
        if not text:
            return []
        first, self._first = self._first, False
        return [Piece(self._kind, text, first)]


def shown(pieces: Iterable[Piece]) -> str:
    """Return pieces as one text, in which a use of the calculator reads `[3+4 = 7] `."""
    return "".join(shown_each(pieces))


def shown_each(pieces: Iterable[Piece]) -> Iterator[str]:
    """Yield the text of `shown`, each part of it as soon as its piece is there."""
    kind: PieceKind = "text"
    for piece in pieces:
        yield "".join((*_between(kind, piece), piece.text))
        kind = piece.kind
    if kind == "result":
        yield "] "


def _between(before: PieceKind, piece: Piece) -> list[str]:
    match before, piece.kind:
        case "text", "expression":
            return ["["]
        case "expression", "result":
            return [" = "]
        case "text", "result":
            return [" = "]
        case "result", "text":
            return ["] "]
        case "result", "expression":
            return ["] ["]
    return []


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-n:])), 0)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _goes_on(raw: bytes) -> bool:
    """Return whether bytes begin in the middle of a character."""
    return raw[:1] != b"" and raw[0] & 0xC0 == 0x80


def _incomplete_tail(raw: bytes) -> int:
    """Count the bytes at the end that begin a character and wait for more."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue  # a continuation byte: look for its start
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if needed > back else 0
    return 0
