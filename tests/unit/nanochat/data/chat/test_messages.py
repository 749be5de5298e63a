from __future__ import annotations

import pytest

from nanochat.data.chat.messages import PART_TYPES, wrong_in
from nanochat.tokenizer.chat_format import render
from nanochat.tokenizer.tokenizer import Tokenizer


def talk(question, answer, **more):
    return [{"role": "user", "content": question, **more}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "messages",
    [
        talk("hi", "hello"),
        talk("", ""),
        [{"role": "system", "content": "Be brief."}, *talk("hi", "hello"), *talk("2+3?", "5")],
        talk("2+3?", [{"type": kind, "text": "5"} for kind in PART_TYPES]),
        talk("hi", []),
        talk("😀 \r\n\0", "\u2028", name="somebody"),
        talk("hi", "hello")[:1] + talk("hi", "hello")[1:] + talk("and?", "")[:1],
    ],
)
def test_what_passes_can_be_rendered(messages):
    assert wrong_in(messages) is None
    ids, mask = render(Tokenizer.from_ranks({bytes([b]): b for b in range(256)}), messages)
    assert len(ids) == len(mask) > 4


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        (None, "no messages"),
        ([], "messages is not a list"),
        ("hi", "messages is not a list"),
        ({"role": "user"}, "messages is not a list"),
        ([1, 2], "roles None, None do not alternate"),
        (talk("hi", "hello")[:1], "roles user do not alternate"),
        (talk("hi", "hello")[::-1], "roles assistant, user do not alternate"),
        (talk(None, "hello"), "message 1, user: no content"),
        (talk(["hi"], "hello"), "message 1, user: content is ['hi'], which is not text"),
        (talk("hi", 3), "message 2, assistant: content is 3, which is not text"),
        (talk("hi", ["hello"]), "message 2, assistant: 'hello' is not a part of type text, python, python"),
        (talk("hi", [{"type": "image", "text": ""}]), "message 2, assistant: {'type': 'image'"),
        (talk("hi", [{"type": "python"}]), "message 2, assistant: no content"),
        (talk("hi", "hel\ud800lo"), "message 2, assistant: half of a surrogate pair at character 3"),
        (talk("x" * 50, ["y" * 50]), "yyy... is not a part"),
    ],
)
def test_what_cannot_be_rendered_is_told(messages, wrong):
    assert wrong in str(wrong_in(messages))
