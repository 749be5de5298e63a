from __future__ import annotations

import pytest

from nanochat.chat.conversation import Dialogue
from nanochat.config import Sampling
from nanochat.terminal.commands import COMMANDS
from nanochat.terminal.line_chat import LineScreen, talk_by_lines
from nanochat.terminal.talk import CUT, Talk
from tests.support.serving import ENDLESS, SUM, tiny_engine

GREEDY = Sampling(temperature=0)
SHORT = ("ok", "<|assistant_end|>")


def _talk(*lines, answer=SHORT, context=256, sampling=GREEDY):
    """Return what is written as answers, what is noted, and the conversation."""
    written, notes = [], []
    dialogue = Dialogue(tiny_engine(answer, context), sampling)
    talk = Talk(dialogue, LineScreen(written.append, notes.append), "tiny")
    talk_by_lines(talk, [f"{line}\n" for line in lines])
    return "".join(written), notes, talk


def test_answers_alone_are_data_and_a_calculation_is_in_them():
    assert _talk("hi", "", "  ", "more", "quit", "never read", answer=SUM)[:2] == (
        "Let me see: [3+4 = 7]  That makes **7**, or 日本語.\n" * 2,
        [],
    )


@pytest.mark.parametrize("line", ["quit", " EXIT ", "/quit", "/QUIT"])
def test_words_that_leave_are_not_sent(line):
    written, notes, talk = _talk(line, "never read")
    assert (written, notes, talk.dialogue.turns) == ("", [], [])


def test_a_refused_message_is_named_with_size_limit_and_way_out_and_the_chat_goes_on():
    written, notes, _ = _talk("hi", "x" * 60, "caf\ufffd", "a\udc80", context=60)
    assert written == "ok\nok\n"
    assert notes[:2] == [
        "(the message has 63 tokens; with its answer it must fit into 60; shorten the message)",
        "(bytes that are not UTF-8 were replaced)",
    ]
    assert "lone surrogate U+DC80" in notes[2]
    assert _talk("hi", "x" * 40, context=60)[1] == ["(the context is full: the oldest turn is forgotten)"]


def test_what_cut_an_answer_is_noted():
    assert _talk("x" * 30, answer=ENDLESS, context=40)[1] == [f"({CUT})"]
    assert _talk("x", answer=ENDLESS, sampling=Sampling(temperature=0, max_new_tokens=3))[:2] == (
        " ab\n",
        ["(the answer ends here because it may have 3 tokens at most)"],
    )


def test_a_block_of_lines_is_one_message_without_its_marks():
    said = [
        turn.question
        for turn in _talk('"""one', "", '  two"""', '"""', "three", '"""', '"""open')[2].dialogue.turns
    ]
    assert said == ["one\n\n  two", "three", "open"]


def test_settings_are_shown_changed_and_checked():
    _, notes, talk = _talk(
        *("/temperature", "/temperature 0.5", "/topk 0", "/topk", "/topp 2", "/seed x", "/minp 0.1"),
        *("/maxtokens 9", "/system Be brief.", "/system", '/system ""', '/system """two', 'lines"""'),
    )
    assert notes == [
        "(temperature is 0)",
        "(temperature is 0.5)",
        "(top_k is off (all tokens))",
        "(top_k is off (all tokens))",
        "(top_p is 2.0; it must be above 0 and at most 1)",
        "(seed is 'x', not a whole number)",
        "(min_p is 0.1)",
        "(max_new_tokens is 9)",
        "(system prompt: Be brief.)",
        "(system prompt: Be brief.)",
        "(there is no system prompt)",
        "(system prompt: two\nlines)",
    ]
    assert talk.dialogue.sampling == Sampling(temperature=0.5, top_k=None, min_p=0.1, max_new_tokens=9)


def test_an_unknown_command_is_not_sent_and_a_space_before_it_sends_it():
    written, notes, talk = _talk("/halp me", " /usr/bin is what?")
    assert "/halp is not a command" in notes[0] and "/help /clear" in notes[0]
    assert (written, [turn.question for turn in talk.dialogue.turns]) == ("ok\n", ["/usr/bin is what?"])
    (said,) = _talk("/help")[1]
    assert all(f"/{command.name}" in said and command.help in said for command in COMMANDS)


def test_clear_and_retry_change_what_was_said():
    talk = _talk("hi", "/retry", "more", "clear", "again")[2]
    assert [turn.question for turn in talk.dialogue.turns] == ["again"]
    _, notes, talk = _talk("/retry", "hi", "/retry", "/tokens")
    assert len(talk.dialogue.turns) == 1
    assert talk.last.request.sampling.seed == GREEDY.seed + 1
    assert notes[0] == "(nothing has been asked yet)"
    assert "1 turn; 8 of 256 tokens" in notes[1] and "after a prompt of 6 tokens" in notes[1]


def test_a_conversation_is_saved_and_loaded_and_no_file_of_others_is_overwritten(tmp_path):
    path, other = tmp_path / "a b.json", tmp_path / "mine.txt"
    other.write_text("mine")
    _, notes, talk = _talk(
        *(f"/save {path}", "hi", f"/save {path}", "more", f"/save {path}", f"/save {other}", "/save"),
        *("clear", f"/load {path}", f"/load {other}", f"/load {tmp_path / 'none'}", "/tokens", "on"),
    )
    assert [turn.question for turn in talk.dialogue.turns] == ["hi", "more", "on"]
    assert other.read_text() == "mine"
    signs = (
        *("nothing to save", "saved 1 turn", "saved 2 turns", "exists already; choose another name"),
        *("needs the name of a file", "new conversation", "loaded 2 turns", "not a saved conversation"),
        *("none does not exist", "2 turns; "),
    )
    for note, sign in zip(notes, signs, strict=True):
        assert sign in note


def test_what_is_neither_a_command_nor_a_path_ends_no_chat():
    written, notes, _ = _talk("/", "/ ", "/load a\0b", "hi", "/save a\0b")
    assert written == "ok\n"
    assert [note.split(",")[0] for note in notes] == [
        *["(/ is not a command"] * 2,
        *[r"('a\x00b' holds a null character"] * 2,
    ]
