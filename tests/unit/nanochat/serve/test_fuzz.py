"""Bodies that nobody has thought of: each is answered or refused in the API's form, and none is a 500."""

from __future__ import annotations

import copy
import json
import logging
import random

import pytest

_BODIES = 10_000
_PATHS = ("/v1/chat/completions", "/v1/completions", "/chat/completions")
_CHAT = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": "a",
            "calculator": [{"expression": "1+1", "result": "2", "offset": 1}],
        },
        {"role": "user", "content": "and 日本?"},
    ],
    "max_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "seed": 3,
    "stop": ["x"],
    "logprobs": True,
    "top_logprobs": 2,
    "stream": False,
    "stream_options": None,
    "n": 1,
}
_CALL = {"name": "calculator", "arguments": '{"expression": "3+4"}'}
_TOOLS = {
    "messages": [
        {"role": "user", "content": "3+4?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "calculator", "arguments": '{"expression": "3+4"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "7"},
    ],
    "tools": [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "max_completion_tokens": 1,
}
_TEXT = {"prompt": ["one", "two"], "max_tokens": 1, "logprobs": 1, "echo": False, "suffix": None}
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.1, 1e308, -0.0, float("nan"), float("inf"))
_TEXTS = ("", "x", "\x00", "\ud800", "\u202e", "a" * 9_000, "<|assistant_end|>")
_VALUES = (*_NUMBERS, *_TEXTS, None, True, False, [], {}, [[]], [None], [1, [2, [3]]], {"a": {"b": []}})
_RAW = (
    *(b"", b"{", b"null", b"[]", b'"x"', b"{}" * 2, b"[" * 100_000, b'{"messages": "\xff\xfe"}'),
    *(b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b'{"n": ' + b"9" * 5_000 + b"}"),
)


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _places(inner, (*path, name))


def _mutated(body, draw):
    """Change a body at one to three places: another value, nothing, twice, or under another name."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        *above, last = draw.choice([path for path in _places(body) if path] or [("x",)])
        parent = body
        for name in above:
            parent = parent[name]
        match draw.randrange(5):
            case 0:
                del parent[last]
            case 1 if isinstance(parent, list):
                parent.insert(0, copy.deepcopy(parent[last]))
            case 2 if isinstance(parent, dict):
                parent[draw.choice((last.upper(), last + "\u00e9", "extra", "role", "content"))] = parent.pop(
                    last
                )
            case _:
                parent[last] = copy.deepcopy(draw.choice(_VALUES))
    return body


def _bodies(draw):
    for number in range(_BODIES):
        if number % 50 == 0:
            yield draw.choice(_RAW)
            continue
        body = json.dumps(_mutated(copy.deepcopy(draw.choice((_CHAT, _CHAT, _TOOLS, _TEXT))), draw)).encode()
        yield body[: draw.randrange(len(body))] if number % 50 == 1 else body


@pytest.mark.slow
def test_ten_thousand_strange_bodies_are_answered_or_refused_in_form(client, caplog):
    # A connection each: on a busy machine one that is kept may have been idle for too long.
    headers = {"content-type": "application/json", "connection": "close"}
    draw, statuses = random.Random(7), dict.fromkeys((200, 400), 0)
    with caplog.at_level(logging.ERROR):
        for body in _bodies(draw):
            path = draw.choice(_PATHS)
            answer = client.post(path, content=body, headers=headers)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (path, body[:2000], answer.text)
            if answer.status_code >= 400:
                error = answer.json()["error"]
                assert error.keys() == {"message", "type", "param", "code"} and error["message"], body[:2000]
    assert not caplog.records
    assert min(statuses[200], statuses[400]) > _BODIES // 50, statuses  # both kinds are tried
