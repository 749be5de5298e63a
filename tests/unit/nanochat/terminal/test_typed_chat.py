from __future__ import annotations

import io
import os
import re

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from nanochat.chat.conversation import Dialogue
from nanochat.config import Sampling
from nanochat.terminal.commands import COMMANDS
from nanochat.terminal.talk import Talk
from nanochat.terminal.typed_chat import (
    CommandCompleter,
    KeptHistory,
    TerminalScreen,
    status_of,
    talk_at_terminal,
)
from tests.support.serving import SUM, tiny_engine

HOSTILE = ("\x1b]0;owned\x07", "\x1b[31m", "\u202e", "<|assistant_end|>")


def _type(keys, answer=SUM, history=None):
    """Return what a person sees who types these keys, and the conversation."""
    screen_text, talks = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), []
    output = Vt100_Output(screen_text, lambda: Size(rows=24, columns=70), term="xterm")

    def make_talk(screen):
        talks.append(Talk(Dialogue(tiny_engine(answer), Sampling(temperature=0)), screen, "tiny"))
        return talks[0]

    with create_pipe_input() as pipe:
        pipe.send_text(keys)
        talk_at_terminal(make_talk, history=history, input=pipe, output=output)
    screen_text.flush()
    return screen_text.buffer.getvalue().decode(), talks[0]


def _plain(seen):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)


def _questions(talk):
    return [turn.question for turn in talk.dialogue.turns]


def test_lines_blocks_and_pasted_text_are_one_message_each():
    keys = 'one\x1b\rtwo\r"""three\rfour"""\r\x1b[200~five\nsix\x1b[201~\r\x04'
    _, talk = _type(keys)
    assert _questions(talk) == ["one\ntwo", "three\nfour", "five\nsix"]


def test_an_answer_is_styled_and_names_what_the_calculator_did():
    seen, talk = _type("hi\r/tokens\rquit\r")
    assert "\x1b[0;1m7" in seen  # bold
    seen = _plain(seen)
    assert "⚙ 3+4 = 7" in seen and "**" not in seen and "makes" in seen and "日本語" in seen
    assert "1 turn" in seen
    assert re.fullmatch(r"tiny · [\d.]+ tokens/s · context 26 of 1,024 \(3%\)", status_of(talk))
    assert talk.over


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves():
    _, talk = _type("never sent\x03sent\r\x04")
    assert _questions(talk) == ["sent"]


def test_a_second_session_knows_what_was_entered_in_the_first(tmp_path):
    history = tmp_path / "home/history"
    _type("the first\r\x04", history=history)
    assert history.stat().st_mode & 0o777 == 0o600
    _, talk = _type("\x1b[A\r\x04", history=history)
    assert _questions(talk) == ["the first"]
    history.write_text("\n# then\n+old line\n" * 100_000)
    _, talk = _type("\x1b[A\r\x04", history=history)
    assert _questions(talk) == ["old line"] and history.stat().st_size < 1 << 20


def test_what_the_model_writes_does_not_act_on_the_terminal():
    seen, _ = _type("hi\r\x04", answer=HOSTILE)
    assert "\x1b]0;owned" not in seen and "\u202e" not in seen
    assert r"\x1b]0;owned\x07" in seen and r"\u202e" in seen


def test_without_colours_none_are_used(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    seen, _ = _type("hi\r\x04")
    assert "\x1b[3" not in seen and "\x1b[9" not in seen


@pytest.mark.parametrize(
    ("typed", "names"),
    [("/te", ["temperature"]), ("/", [command.name for command in COMMANDS]), ("te", []), ("/x", [])],
)
def test_commands_are_completed(typed, names):
    found = CommandCompleter().get_completions(Document(typed, len(typed)), None)
    assert [completion.text for completion in found] == names


def test_paths_are_completed_behind_commands_that_take_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.json").touch()
    for typed, found in (("/load ta", ["lk.json"]), ("/system ta", [])):
        completions = CommandCompleter().get_completions(Document(typed, len(typed)), None)
        assert [completion.text for completion in completions] == found


def test_a_terminal_without_unicode_gets_plain_signs():
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output = Vt100_Output(text, lambda: Size(rows=24, columns=70), term="xterm")
    screen = TerminalScreen(output)
    Talk(Dialogue(tiny_engine(("- item ", "<|assistant_end|>")), Sampling(temperature=0)), screen).ask("hi")
    text.flush()
    assert "* item" in _plain(text.buffer.getvalue().decode())


def test_a_history_that_cannot_be_kept_ends_no_chat_and_only_a_file_is_made_private(tmp_path, monkeypatch):
    made_private = []
    monkeypatch.setattr(os, "fchmod", lambda *asked: made_private.append(asked))
    (tmp_path / "none").symlink_to(os.devnull)
    _, talk = _type("hi\r\x04", history=tmp_path / "none")
    assert _questions(talk) == ["hi"] and made_private == []
    gone = KeptHistory(str(tmp_path / "gone/history"))
    gone.append_string("kept here")
    assert gone.get_strings() == ["kept here"]
