"""A conversation on a screen: asks, shows the answer, and says what is worth knowing about it.

What a line does that somebody enters is decided in `nanochat.terminal.commands`; how answers and notes look,
by the `Screen`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from nanochat.chat.conversation import Dialogue, Reply
from nanochat.terminal.interrupts import ctrl_c_calls

CUT = "the answer ends here because the model's context is full"


class Screen(Protocol):
    """Where answers and notes appear."""

    def note(self, text: str) -> None:
        """Show a line about the conversation."""

    def show(self, reply: Reply) -> None:
        """Show an answer while it is written, to its end."""


class Talk:
    """A conversation, and where it is shown."""

    def __init__(self, dialogue: Dialogue, screen: Screen, name: str = "") -> None:
        self.dialogue = dialogue
        self.screen = screen
        self.name = name
        """Of the model."""
        self.over = False
        self.last: Reply | None = None
        self.files: set[Path] = set()
        """Those that this conversation was saved to or loaded from."""

    def ask(self, text: str) -> None:
        """Show the answer to a message; raise DataError for one that is refused."""
        forgotten = self.dialogue.forgotten
        self.last = reply = self.dialogue.ask(text)
        with ctrl_c_calls(reply.stop_soon):
            if dropped := self.dialogue.forgotten - forgotten:
                turns = "oldest turn is" if dropped == 1 else f"oldest {dropped} turns are"
                self.screen.note(f"the context is full: the {turns} forgotten")
            self.screen.show(reply)
        if end := how_it_ended(reply):
            self.screen.note(end)


def how_it_ended(reply: Reply) -> str | None:
    """Return why an answer ends where it does, unless the model itself ended it."""
    match reply.request.finish:
        case "context":
            return CUT
        case "length":
            limit = reply.request.sampling.max_new_tokens
            return f"the answer ends here because it may have {limit:,} tokens at most"
        case "cancelled":
            return "stopped"
    return None
