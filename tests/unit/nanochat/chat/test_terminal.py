from __future__ import annotations

from types import SimpleNamespace

import pytest

from nanochat.chat.terminal import ChatSession, answer, chat
from nanochat.config import ChatSettings
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
    session = ChatSession(engine, ChatSettings(max_new_tokens=6))
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
