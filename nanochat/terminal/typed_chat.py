"""The chat of a person at a terminal: lines with history and completion, answers as they are written.

Enter sends; Alt-Enter, or a block between triple quotation marks, makes lines. What a line does is decided in
`nanochat.terminal.commands`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.styles import Style, merge_styles
from prompt_toolkit.styles.pygments import style_from_pygments_cls
from pygments.styles import get_style_by_name

from nanochat.chat.conversation import Reply
from nanochat.chat.pieces import Piece
from nanochat.printable import printable
from nanochat.terminal.blocks import is_open
from nanochat.terminal.commands import COMMANDS, take
from nanochat.terminal.interrupts import sigterm_exits
from nanochat.terminal.streamed_markdown import StreamedMarkdown
from nanochat.terminal.talk import Talk

_LONGEST_HISTORY = 1 << 20  # bytes
_PROMPT = "> "
_STYLES = {
    "heading": "bold underline",
    "strong": "bold",
    "emphasis": "italic",
    "code": "ansicyan",
    "mark": "ansiblue",
    "quiet": "ansibrightblack",
    "tool": "ansibrightblack italic",
    "prompt": "bold",
    "bottom-toolbar": "noreverse ansibrightblack",
}


class TerminalScreen:
    """Shows answers as Markdown, and notes in a quiet colour."""

    def __init__(self, output: Output, environment: Mapping[str, str] = os.environ) -> None:
        self._output = output
        plain = "NO_COLOR" in environment or environment.get("TERM") == "dumb"
        self.depth = ColorDepth.DEPTH_1_BIT if plain else None
        self.style = merge_styles(
            [style_from_pygments_cls(get_style_by_name("default")), Style.from_dict(_STYLES)]
        )
        self._fancy = _can_show("⚙•│─", output.encoding() or "ascii")

    def note(self, text: str) -> None:
        """Show a line about the conversation."""
        self._show("class:quiet", f"{text}\n")

    def show(self, reply: Reply) -> None:
        """Show an answer piece by piece, and the end of its line."""
        marks = {} if self._fancy else {"bullet": "*", "bar": "|"}
        markdown = StreamedMarkdown(self._show, self._columns, **marks)
        use = _CalculatorUse(markdown, "⚙ " if self._fancy else "= ")
        for piece in reply:
            use.push(piece)
        use.end()
        markdown.end()

    def _columns(self) -> int:
        return self._output.get_size().columns - 1

    def _show(self, style: str, text: str) -> None:
        print_formatted_text(
            FormattedText([(style, printable(text))]),
            end="",
            output=self._output,
            style=self.style,
            color_depth=self.depth,
        )


class _CalculatorUse:
    """Passes pieces on; a use of the calculator is shown once it is whole."""

    def __init__(self, markdown: StreamedMarkdown, sign: str) -> None:
        self._markdown, self._sign = markdown, sign
        self._expression, self._result = "", ""

    def push(self, piece: Piece) -> None:
        if piece.kind == "expression":
            if piece.first:
                self.end()
            self._expression += piece.text
        elif piece.kind == "result":
            self._result += piece.text
        else:
            self.end()
            self._markdown.push(piece.text)

    def end(self) -> None:
        """Show what was asked and returned."""
        if self._expression or self._result:
            result = f" = {self._result}" if self._result else ""
            self._markdown.aside("class:tool", f"{self._sign}{self._expression}{result} ")
            self._expression, self._result = "", ""


class CommandCompleter(Completer):
    """Completes names of commands, and paths behind those that take one."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the text before the cursor may become."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for command in COMMANDS:
                if command.name.startswith(name):
                    yield Completion(
                        command.name,
                        -len(name),
                        display=f"/{command.name} {command.argument}",
                        display_meta=command.help,
                    )
        elif any(command.name == name and command.completes == "path" for command in COMMANDS):
            behind = Document(argument, len(argument))
            yield from PathCompleter(expanduser=True).get_completions(behind, complete_event)


class KeptHistory(FileHistory):
    """Lines kept in a file as far as possible: a disk that is full ends no chat."""

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of earlier sessions, none where the file has become unreadable."""
        try:
            return super().load_history_strings()
        except OSError:
            return ()

    def store_string(self, string: str) -> None:
        """Add a line; this session knows it anyway."""
        with suppress(OSError):
            super().store_string(string)


def talk_at_terminal(
    make_talk: Callable[[TerminalScreen], Talk],
    *,
    history: Path | None = None,
    input: Input | None = None,
    output: Output | None = None,
) -> None:
    """Talk until the person leaves; what was entered is kept in a file of the person's own."""
    screen = TerminalScreen(output or create_output())
    talk = make_talk(screen)
    session: PromptSession[str] = PromptSession(
        [("class:prompt", _PROMPT)],
        multiline=True,
        history=_kept_history(history),
        completer=CommandCompleter(),
        complete_while_typing=False,
        key_bindings=_keys(),
        bottom_toolbar=lambda: status_of(talk),
        prompt_continuation="  ",
        style=screen.style,
        color_depth=screen.depth,
        input=input,
        output=output,
        enable_open_in_editor=True,
        tempfile_suffix=".md",
    )
    screen.note("/help lists what can be entered")
    with sigterm_exits():
        while not talk.over:
            try:
                text = session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            take(talk, text)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            buffer.complete_state = None  # Enter takes the completion; another one sends
        elif is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def status_of(talk: Talk) -> str:
    """Return model, speed of the last answer, and how much of the context is used."""
    used, context = talk.dialogue.used_tokens, talk.dialogue.engine.context_tokens
    parts = [printable(talk.name), f"context {used:,} of {context:,} ({used / context:.0%})"]
    if talk.last is not None and talk.last.seconds > 0 and (written := len(talk.last.request.tokens)):
        parts.insert(1, f"{written / talk.last.seconds:.1f} tokens/s")
    return " · ".join(part for part in parts if part)


def _kept_history(path: Path | None) -> History:
    """Return the lines entered before; a file that cannot be used is not worth ending a chat for."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return InMemoryHistory()  # a link to /dev/null, say, whose mode is not ours to change
            os.fchmod(file.fileno(), 0o600)
            content = file.read()
            if len(content) > _LONGEST_HISTORY:
                recent = content[-_LONGEST_HISTORY // 2 :]
                file.seek(0)
                file.write(recent[max(0, recent.find(b"\n# ")) :])
                file.truncate()
    except OSError:
        return InMemoryHistory()
    return KeptHistory(str(path))


def _can_show(characters: str, encoding: str) -> bool:
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
