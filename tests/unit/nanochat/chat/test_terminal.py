from __future__ import annotations

from types import SimpleNamespace

import pytest

from nanochat.chat.terminal import CUT, ChatSession, answer, chat
from nanochat.config import Sampling
from nanochat.errors import DataError
from nanochat.tokenizer.tokenizer import Tokenizer


class EchoEngine:
    """Answers every prompt with "ok" and keeps the prompts."""

    def __init__(self, sequence_len=200, reply="ok"):
        self.tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
        self.model = SimpleNamespace(config=SimpleNamespace(sequence_len=sequence_len))
        self.prompts, self.limits, self.reply = [], [], reply

    def generate(self, prompt_ids, *, max_new_tokens, **_):
        self.prompts.append(self.tokenizer.decode(prompt_ids))
        self.limits.append(max_new_tokens)
        return iter(self.tokenizer.encode(self.reply)[:max_new_tokens])


def _talk(engine, *lines):
    written, pending = [], list(lines)

    def read():
        if not pending:
            raise EOFError
        return pending.pop(0)

    chat(engine, read, written.append)
    return "".join(written)


def test_conversation_goes_on_with_every_turn_closed():
    engine = EchoEngine()
    output = _talk(engine, "hi", "more", "quit", "never read")
    assert output.count("ok\n") == 2
    assert engine.prompts == [
        "<|bos|><|user_start|>hi<|user_end|><|assistant_start|>",
        "<|bos|><|user_start|>hi<|user_end|><|assistant_start|>ok<|assistant_end|>"
        "<|user_start|>more<|user_end|><|assistant_start|>",
    ]


def test_answer_that_was_cut_short_is_closed_too():
    engine = EchoEngine(reply="a long answer")
    session = ChatSession(engine, Sampling(max_new_tokens=6))
    assert "".join(session.ask("q")) == "a long"
    list(session.ask("r"))
    assert "a long<|assistant_end|><|user_start|>r" in engine.prompts[1]


def test_clear_forgets_the_conversation():
    engine = EchoEngine()
    _talk(engine, "hi", "clear", "again")
    assert engine.prompts[1] == "<|bos|><|user_start|>again<|user_end|><|assistant_start|>"


def test_full_context_drops_the_oldest_turns_and_says_so():
    engine = EchoEngine(sequence_len=40)
    output = _talk(engine, "first one", "second one", "third one")
    assert "the oldest 1 turns are forgotten" in output
    assert "first" not in engine.prompts[2]
    assert "second" in engine.prompts[2]
    assert all(
        len(engine.tokenizer.encode(p)) > 0 and limit >= 1
        for p, limit in zip(engine.prompts, engine.limits, strict=True)
    )


@pytest.mark.parametrize("line", ["quit", "EXIT"])
def test_commands_end_the_chat_without_asking(line):
    engine = EchoEngine()
    _talk(engine, line)
    assert engine.prompts == []


def test_single_answer_is_returned_as_text():
    assert answer(EchoEngine(), "hello") == "ok"


def test_blank_lines_are_not_asked():
    engine = EchoEngine()
    _talk(engine, "", "   ")
    assert engine.prompts == []


def test_a_message_that_the_context_cannot_hold_is_refused_and_the_chat_goes_on():
    engine = EchoEngine(sequence_len=40)
    output = _talk(engine, "hi", "x" * 50, "more")
    assert "(the message has 53 tokens; with its answer it must fit into 40; shorten the message)\n" in output
    assert output.count("ok\n") == 2
    assert engine.prompts[1].startswith("<|bos|><|user_start|>hi")  # nothing was forgotten for it
    with pytest.raises(DataError, match="has 53 tokens"):
        answer(engine, "x" * 50)


def test_a_long_message_is_asked_as_a_whole():
    engine = EchoEngine(sequence_len=4096)
    answer(engine, "x" * 3000)
    assert engine.prompts[0].endswith("x<|user_end|><|assistant_start|>")
    assert engine.prompts[0].count("x") == 3000


def test_an_answer_that_the_context_cuts_says_so():
    engine = EchoEngine(sequence_len=40, reply="a long answer")
    assert _talk(engine, "x" * 30).endswith(f"a long\n{CUT}\n\n")
    assert CUT not in _talk(engine, "x" * 3)
    session = ChatSession(engine, Sampling(max_new_tokens=6))
    list(session.ask("x" * 30))
    assert not session.cut  # the settings ended it


def test_bytes_that_are_not_text_do_not_end_the_chat():
    engine = EchoEngine()
    output = _talk(engine, "caf\ufffd", "a\udc80", "hi")
    assert "bytes that are not UTF-8 were replaced" in output
    assert "lone surrogate U+DC80" in output
    assert output.count("ok\n") == 2
