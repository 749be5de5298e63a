"""Chat by lines, without a terminal's help: what programs and pipes talk to.

Answers go where data goes, everything else beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nanochat.chat.conversation import Reply
from nanochat.chat.pieces import shown_each
from nanochat.terminal.blocks import is_open
from nanochat.terminal.commands import take
from nanochat.terminal.talk import Talk


class LineScreen:
    """Writes answers as they come, and notes in parentheses."""

    def __init__(self, write: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._write, self._note = write, note

    def note(self, text: str) -> None:
        """Write a line about the conversation."""
        self._note(f"({text})")

    def show(self, reply: Reply) -> None:
        """Write an answer piece by piece, and the end of its line."""
        for text in shown_each(reply):
            self._write(text)
        self._write("\n")


def talk_by_lines(talk: Talk, lines: Iterable[str]) -> None:
    """Take lines until there are none, or one that leaves."""
    block: list[str] = []
    reading = iter(lines)
    while not talk.over:
        line = next(reading, None)
        if line is not None:
            block.append(line.rstrip("\n"))
            if is_open("\n".join(block)):
                continue
        elif not block:
            return
        take(talk, "\n".join(block))
        block.clear()
