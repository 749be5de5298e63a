from __future__ import annotations

import json

import pytest

from nanochat.chat.conversation import Dialogue, answer
from nanochat.chat.conversation_file import load_conversation, save_conversation
from nanochat.config import Sampling
from nanochat.data.chat.messages import wrong_in
from nanochat.errors import DataError
from tests.support.serving import ENDLESS, SUM, tiny_engine

GREEDY = Sampling(temperature=0)
SHORT = ("ok", "<|assistant_end|>")


def _decoded(dialogue, request):
    return dialogue.engine.tokenizer.decode(request.prompt)


def _asked(dialogue, text):
    reply = dialogue.ask(text)
    list(reply)
    return reply


def test_a_next_prompt_begins_with_all_tokens_so_far_and_the_engine_reads_only_what_is_new():
    dialogue = Dialogue(tiny_engine(SUM), GREEDY, system="Be exact.")
    first, second = _asked(dialogue, "hi"), _asked(dialogue, "more")
    end = dialogue.engine.tokenizer.special("assistant_end")
    so_far = (*first.request.prompt, *first.request.tokens, end)
    assert second.request.prompt[: len(so_far)] == so_far
    assert second.request.reused_tokens >= len(so_far) - 1  # what ends an answer is not computed for it
    assert _decoded(dialogue, first.request) == (
        "<|bos|><|user_start|>Be exact.\n\nhi<|user_end|><|assistant_start|>"
    )
    assert _decoded(dialogue, second.request).endswith(
        "<|assistant_end|><|user_start|>more<|user_end|><|assistant_start|>"
    )


def test_each_answer_has_a_seed_of_its_own_and_one_asked_again_has_another():
    dialogue = Dialogue(tiny_engine(SHORT), Sampling(seed=7))
    assert [_asked(dialogue, "hi").request.sampling.seed for _ in range(2)] == [7, 8]
    assert dialogue.take_back() == "hi"
    assert _asked(dialogue, "hi").request.sampling.seed == 9
    dialogue.clear()
    assert _asked(dialogue, "hi").request.sampling.seed == 7
    dialogue.clear()
    with pytest.raises(DataError, match="nothing has been asked"):
        dialogue.take_back()


@pytest.mark.parametrize(
    ("answer", "tokens", "kept"),
    [
        (ENDLESS, 3, " ab<|assistant_end|>"),
        (SUM, 6, "Let me see: <|python_start|>3<|python_end|><|assistant_end|>"),
    ],
    ids=["in text", "in a calculation"],
)
def test_an_answer_that_is_stopped_keeps_what_was_written_and_is_closed(answer, tokens, kept):
    dialogue = Dialogue(tiny_engine(answer), GREEDY)
    reply = dialogue.ask("q")
    for _ in reply:
        if len(reply.request.tokens) >= tokens:
            reply.stop_soon()
    _asked(dialogue, "r")
    text = _decoded(dialogue, dialogue.ask("s").request)
    assert f"q<|user_end|><|assistant_start|>{kept}<|user_start|>r" in text
    assert not [r for r in dialogue.engine.step() if r.request is reply.request]


def test_text_after_a_stop_string_does_not_belong_to_the_conversation():
    dialogue = Dialogue(tiny_engine(ENDLESS), Sampling(temperature=0, stop=("cd",)))
    assert _asked(dialogue, "q").text == " ab"
    assert "> ab<|assistant_end|>" in _decoded(dialogue, dialogue.ask("r").request)


def test_leaving_an_answer_early_ends_its_request():
    dialogue = Dialogue(tiny_engine(ENDLESS), GREEDY)
    reply = dialogue.ask("q")
    assert next(iter(reply)).text == " "
    assert reply.request.finish == "cancelled" and not dialogue.engine.busy


def test_a_full_context_drops_the_oldest_turns_and_keeps_the_system_prompt():
    dialogue = Dialogue(tiny_engine(SHORT, context=56), GREEDY, system="Sys")
    for text in ("first one", "second one", "third one"):
        reply = _asked(dialogue, text)
    assert dialogue.forgotten == 1
    prompt = _decoded(dialogue, reply.request)
    assert "first" not in prompt
    assert prompt.startswith("<|bos|><|user_start|>Sys\n\nsecond one")


def test_a_message_that_cannot_be_asked_is_refused_with_size_and_limit_and_changes_nothing():
    dialogue = Dialogue(tiny_engine(SHORT, context=40), GREEDY)
    _asked(dialogue, "hi")
    before = dialogue.messages
    with pytest.raises(DataError, match="has 53 tokens; with its answer it must fit into 40"):
        dialogue.ask("x" * 50)
    with pytest.raises(DataError, match=r"lone surrogate U\+DC80"):
        dialogue.ask("a\udc80")
    with pytest.raises(DataError, match="is empty"):
        dialogue.ask(" \n")
    assert dialogue.messages == before and not dialogue.engine.busy
    assert "hi<|user_end|>" in _decoded(dialogue, _asked(dialogue, "more").request)


def test_an_answer_says_what_ended_it():
    dialogue = Dialogue(tiny_engine(ENDLESS, context=40), Sampling(temperature=0, max_new_tokens=3))
    assert _asked(dialogue, "q").request.finish == "length"
    dialogue.sampling = GREEDY
    assert _asked(dialogue, "x" * 30).request.finish == "context"
    assert answer(tiny_engine(SUM), "hello") == "Let me see: [3+4 = 7]  That makes **7**, or 日本語."


def test_a_conversation_is_saved_in_the_form_of_own_conversations_and_goes_on_when_loaded(tmp_path):
    dialogue = Dialogue(tiny_engine(SUM), GREEDY, system="Be exact.")
    for text in ("hi", "and\n日本\u2028?"):
        reply = _asked(dialogue, text)
    path = tmp_path / "talk.json"
    save_conversation(path, dialogue.messages, {"model": "tiny"})
    assert path.read_text("utf-8").count("\n") == 1
    assert wrong_in(json.loads(path.read_text("utf-8"))) is None
    again = Dialogue(dialogue.engine, GREEDY)
    again.restore(load_conversation(path))
    assert again.messages == dialogue.messages
    assert again.system == "Be exact."
    assert again.messages[2]["content"] == reply.parts
    assert again.used_tokens > len(reply.request.prompt)
    assert _decoded(again, again.ask("more").request) == _decoded(dialogue, dialogue.ask("more").request)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a saved conversation: not JSON"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1}\n{"a": 2}\n', "has 2 lines; a saved conversation has one"),
        (b'{"a": 1}', "no messages; it has 'a'"),
        (b'[{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]', "do not alternate"),
        (b'[{"role": "user", "content": 3}, {"role": "assistant", "content": "y"}]', "content is 3"),
        (
            b'[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"z"}]',
            "its answer is missing",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_file_that_is_not_a_conversation_is_named_with_what_is_wrong(tmp_path, content, said):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as found:
        load_conversation(path)
    assert str(path) in str(found.value)
    with pytest.raises(DataError, match="is not a file"):
        load_conversation(tmp_path)
