"""Markdown as it is written: words appear one by one, styled and wrapped, and nothing shown is taken back.

What has scrolled away cannot be drawn again, so a mark counts from where it stands: `**` turns bold on until
the line ends, even if its end never comes. Lines of code wait until they are whole and are highlighted then.
Tables are shown as they are written. Not here: what the styles look like, and where they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rich.cells import cell_len

Show = Callable[[str, str], None]
"""Takes a style and a text to append: `class:strong`, `class:code` and others, or none."""

_UNDECIDED = re.compile(  # may yet become the mark of a block, or a longer one
    r"\s*((?:>\s?)+|(?P<rule>[-*_])(?:\s*(?P=rule))*|[#>|~`*+\-_=]{0,8}|\d{1,9}[.)]?)\s*"
)
_HEADING = re.compile(r" {0,3}#{1,6}\s+")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(\s+)")
_QUOTE = re.compile(r" {0,3}((?:>\s?)+)")
_FENCE = re.compile(r" {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*")
_RULE = re.compile(r" {0,3}([-*_])(?:\s*\1){2,}\s*")
_WORD = re.compile(r"\s+|\S+")
_NARROWEST = 20


class StreamedMarkdown:
    """Shows one answer."""

    def __init__(self, show: Show, width: Callable[[], int], *, bullet: str = "•", bar: str = "│") -> None:
        self._show, self._width = show, width
        self._bullet, self._bar = bullet, bar
        self._line = ""  # what has come of the line,
        self._taken = 0  # how much of it is shown,
        self._known = False  # and whether its kind is
        self._column = 0
        self._hanging = ""  # begins the lines that a long one is wrapped to
        self._base = ""  # style of the line
        self._marks: set[str] = set()  # open in the line
        self._fence: _Code | None = None

    def push(self, text: str) -> None:
        """Take in more of the answer; show what is certain."""
        *whole, rest = text.split("\n")
        for part in whole:
            self._line += part
            self._end_line()
        self._line += rest
        self._grow(whole=False)

    def aside(self, style: str, text: str) -> None:
        """Show a text that is not Markdown within the line."""
        self._grow(whole=True)
        for word in _WORD.findall(text):
            self._put(style, word)

    def end(self) -> None:
        """Show what was held back, and begin a new line unless at the beginning of one."""
        if self._line:
            self._end_line()
        elif self._column:
            self._break()

    def _end_line(self) -> None:
        line = self._line
        if self._fence is not None or (not self._taken and not self._column and _is_whole(line)):
            self._show_whole(line)
        else:
            self._grow(whole=True)
            self._break()
        self._line, self._taken, self._known = "", 0, False
        self._hanging, self._base = "", ""
        self._marks.clear()

    def _show_whole(self, line: str) -> None:
        fence = _FENCE.fullmatch(line)
        if self._fence is not None:
            if fence and fence[1].startswith(self._fence.mark) and not fence[2]:
                self._fence = None
            else:
                for style, text in self._fence.styled(line):
                    self._show(style, text)
                self._show("", "\n")
        elif fence:
            self._fence = _Code(fence[1], fence[2])
        elif _RULE.fullmatch(line):
            self._show("class:quiet", "─" * min(self._columns(), 40) + "\n")
        else:
            self._show("", f"{line}\n")  # a row of a table

    def _grow(self, *, whole: bool) -> None:
        """Show the words of the line that are whole, the last one only if the line is."""
        if self._fence is not None:
            return
        if not self._known and not self._decide(whole):
            return
        for found in _WORD.finditer(self._line, self._taken):
            if found.end() == len(self._line) and not whole:
                return
            self._taken = found.end()
            for style, text in self._inline(found[0]):
                self._put(style, text)

    def _decide(self, whole: bool) -> bool:
        """Find what the line is, and show how it begins; return whether that is known."""
        line = self._line
        if self._column:  # behind an aside
            self._known = True
            return True
        if not whole and (_UNDECIDED.fullmatch(line) or _is_whole(line, so_far=True)):
            return False
        self._known = True
        if found := _HEADING.match(line):
            self._base, self._taken = "class:heading", found.end()
        elif found := _QUOTE.match(line):
            self._hanging, self._taken = f"{self._bar} " * found[1].count(">"), found.end()
            self._put("class:quiet", self._hanging)
        elif found := _ITEM.match(line):
            mark = found[2] if found[2][0].isdigit() else self._bullet
            self._hanging, self._taken = " " * (len(found[1]) + cell_len(mark) + 1), found.end()
            self._put("class:mark", f"{found[1]}{mark} ")
        return True

    def _inline(self, word: str) -> Iterator[tuple[str, str]]:
        """Yield a word's parts by style; marks that open or close a style are left out."""
        text, at = "", 0
        while at < len(word):
            mark = _mark_at(word, at, self._marks)
            if mark is None:
                at += word[at] == "\\" and word[at + 1 : at + 2] in tuple("\\`*_#[]")
                text += word[at : at + 1]
                at += 1
                continue
            if text:
                yield self._style(), text
            text, at = "", at + len(mark)
            self._marks ^= {_same(mark)}
        if text:
            yield self._style(), text

    def _style(self) -> str:
        names = {"`": "class:code", "**": "class:strong", "*": "class:emphasis"}
        return " ".join([self._base, *(names[mark] for mark in sorted(self._marks))]).strip()

    def _put(self, style: str, text: str) -> None:
        """Append a word or a space, in a new line where it does not fit."""
        size, room = cell_len(text), self._columns()
        if self._column + size > room and self._column > len(self._hanging):
            self._break()
            self._show("class:quiet" if self._bar in self._hanging else "", self._hanging)
            self._column = cell_len(self._hanging)
            if text.isspace():
                return
        self._show(style, text)
        self._column = (self._column + size) % room if self._column + size > room else self._column + size

    def _break(self) -> None:
        self._show("", "\n")
        self._column = 0

    def _columns(self) -> int:
        return max(_NARROWEST, self._width())


class _Code:
    """The lines of one block of code."""

    def __init__(self, mark: str, language: str) -> None:
        from pygments.lexers import get_lexer_by_name
        from pygments.util import ClassNotFound

        self.mark = mark
        try:
            self._lexer = get_lexer_by_name(language or "text", ensurenl=False, stripnl=False)
        except ClassNotFound:
            self._lexer = get_lexer_by_name("text", ensurenl=False, stripnl=False)

    def styled(self, line: str) -> Iterator[tuple[str, str]]:
        """Yield a line's parts with the names that Pygments has for them; each line is read by itself."""
        yield "", "  "
        for kind, text in self._lexer.get_tokens(line):
            yield f"class:pygments.{'.'.join(kind).lower()}" if kind else "", text.rstrip("\n")


def _is_whole(line: str, *, so_far: bool = False) -> bool:
    """Return whether a line is shown only once it is whole: a fence, a rule or a row of a table."""
    if line.lstrip().startswith(("```", "~~~", "|")):
        return True
    return bool(_RULE.fullmatch(line)) and not so_far


def _mark_at(word: str, at: int, marks: set[str]) -> str | None:
    """Return the mark that opens or closes a style at a place of a word."""
    if "`" in marks:
        return "`" if word[at] == "`" else None
    mark = next((mark for mark in ("**", "__", "`", "*", "_") if word.startswith(mark, at)), None)
    if mark in (None, "`"):
        return mark
    assert mark is not None
    before, after = word[:at], word[at + len(mark) :]
    if _same(mark) in marks:
        closes = before[-1:] not in ("", " ") and (mark[0] == "*" or not after[:1].isalnum())
        return mark if closes else None
    return mark if after and not after[0].isspace() and not before[-1:].isalnum() else None


def _same(mark: str) -> str:
    return mark.replace("_", "*")
