from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanochat.terminal.streamed_markdown import StreamedMarkdown

TEXT = """# A *head*ing

Some **bold words**, `code **as is**`, 2 * 3 and snake_case_name.
- first
  1. second _item_
> quoted
> > twice
```python
def f(x):
    return "**"
```
| a | b |
|---|---|
---
日本語 \\*plain\\* end"""
SHOWN = """A heading

Some bold words, code **as is**, 2 * 3 and snake_case_name.
• first
  1. second item
│ quoted
│ │ twice
  def f(x):
      return "**"
| a | b |
|---|---|
────────────────────────────────────────
日本語 *plain* end
"""


def _shown(pieces, width=80):
    parts = []
    markdown = StreamedMarkdown(lambda style, text: parts.append((style, text)), lambda: width)
    for piece in pieces:
        markdown.push(piece)
    markdown.end()
    return parts


def _text(parts):
    return "".join(text for _, text in parts)


def test_marks_become_styles():
    parts = _shown([TEXT])
    assert _text(parts) == SHOWN
    styles = {word: style for style, text in parts for word in text.split()}
    assert styles["A"] == "class:heading"
    assert styles["bold"] == styles["words"] == "class:strong"
    assert styles["**as"] == "class:code" and styles["3"] == ""
    assert styles["item"] == "class:emphasis"
    assert styles["return"].startswith("class:pygments.")


@given(st.lists(st.integers(1, 9)))
@example([1] * len(TEXT))
def test_how_it_is_cut_changes_nothing(sizes):
    pieces, rest = [], TEXT
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert _shown([*pieces, rest]) == _shown([TEXT])


@given(st.text("ab *_`#>-|1.\n\\~日", max_size=80), st.integers(20, 30))
@example("- - -\n* **\n> > a", 20)
def test_no_text_breaks_it_and_no_line_is_wider_than_the_terminal(text, width):
    shown = _text(_shown(text, width))
    assert shown == _text(_shown([text], width))
    letters = [c for c in text if c in "ab1日"]
    assert [c for c in shown if c in "ab1日"] == letters


def test_words_appear_before_their_line_is_whole():
    seen = []
    markdown = StreamedMarkdown(lambda _, text: seen.append(text), lambda: 80)
    markdown.push("one two thr")
    assert "".join(seen) == "one two "
    markdown.push("ee\n")
    assert "".join(seen) == "one two three\n"


def test_long_lines_are_wrapped_at_words_and_hang_below_their_mark():
    shown = _text(_shown(["- aaaa bbbb cccc dddd eeee 日本語日本語 f\n> " + "word " * 8], width=20))
    assert shown == (
        "• aaaa bbbb cccc \n  dddd eeee \n  日本語日本語 f\n"
        "│ word word word \n│ word word word \n│ word word \n"
    )


@pytest.mark.parametrize("text", ["**open\nplain", "`open\nplain", "*open\nplain"])
def test_a_mark_that_is_not_closed_ends_with_its_line(text):
    assert ("", "plain") in _shown([text])
