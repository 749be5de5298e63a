from __future__ import annotations

import pytest

from nanochat.data.chat.messages import PART_TYPES, messages_of, wrong_in
from nanochat.tokenizer.chat_format import render
from nanochat.tokenizer.tokenizer import Tokenizer


def talk(question, answer, **more):
    return [{"role": "user", "content": question, **more}, {"role": "assistant", "content": answer}]


def answer(**more):
    question, answer = talk("hi", "hello")
    return [question, {**answer, **more}]


def weighed(*weights):
    return [message for weight in weights for message in answer(weight=weight)]


@pytest.mark.parametrize(
    "messages",
    [
        talk("hi", "hello"),
        talk("", ""),
        [{"role": "system", "content": "Be brief."}, *talk("hi", "hello"), *talk("2+3?", "5")],
        talk("2+3?", [{"type": kind, "text": "5"} for kind in PART_TYPES]),
        talk("hi", []),
        talk("😀 \r\n\0", "\u2028", name=None, tool_calls=[], reasoning=""),  # as parquet files have them
        weighed(0, 1),
        {
            "messages": weighed(1.0, None),
            "id": 3,
            "source": "mine",
            "metadata": {"tools": [1]},
            "tools": None,
        },
        talk("hi", "hello")[:1] + talk("hi", "hello")[1:] + talk("and?", "")[:1],
    ],
)
def test_what_passes_can_be_rendered(messages):
    assert wrong_in(messages) is None
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    ids, mask = render(tokenizer, messages_of(messages))
    assert len(ids) == len(mask) > 4


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        (None, "no messages"),
        ([], "messages is not a list"),
        ({"messages": "hi"}, "messages is not a list"),
        ("hi", "no messages"),
        ({"conversations": [], "id": 1}, "no messages; it has 'conversations', 'id'"),
        ({"role": "user", "messages": []}, "'role' is not rendered"),
        ([1, 2], "message 1 is 1, which is not an object"),
        ([{"from": "human", "value": "hi"}], "message 1: role is None, not system, user, assistant"),
        ([*talk("hi", "hello"), {"role": "tool", "content": "5"}], "message 3: role is 'tool', not system"),
        ([{"role": ["user"], "content": "hi"}], "message 1: role is ['user'], not system"),
        ({"messages": talk("hi", "hello"), "tools": [{}]}, "'tools' is not rendered; remove it, or move it"),
        (talk("hi", "hello", name="Ada"), "message 1, user: 'name' is not rendered; remove it"),
        (talk("hi", "hello", weight=1), "message 1, user: 'weight' is not rendered"),
        (answer(reasoning_content="hm"), "message 2, assistant: 'reasoning_content' is not rendered"),
        (answer(tool_calls=[{"id": "1"}]), "message 2, assistant: 'tool_calls' is not rendered"),
        (
            answer(weight=0.5),
            "message 2, assistant: weight is 0.5; it can be 0 (the answer is not trained on)",
        ),
        (answer(weight=-1), "weight is -1"),
        (answer(weight="0"), "weight is '0'"),
        (answer(weight=False), "weight is False"),
        (weighed(0, 0), "each answer has weight 0, which leaves nothing to train on"),
        (talk("hi", [{"type": "text", "text": "a", "annotations": [1]}]), "'annotations' of a part is not"),
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
