"""`/v1/chat/completions`: the same answer whole and in a stream, and the calculator's part in it."""

from __future__ import annotations

import json

from tests.support.serving import SUM_TEXT

ASKED = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
USE = {"expression": "3+4", "result": "7"}


def events(client, body, path="/v1/chat/completions"):
    """Return the events of a stream, without its end."""
    with client.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.read()
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def deltas(found):
    return [choice["delta"] for event in found for choice in event["choices"]]


def test_a_whole_answer_has_its_text_and_what_the_calculator_did(client):
    answer = client.post("/v1/chat/completions", json=ASKED).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": SUM_TEXT,
        "refusal": None,
        "calculator": [{**USE, "offset": len("Let me see: ")}],
    }
    assert (choice["finish_reason"], answer["object"], answer["model"]) == ("stop", "chat.completion", "tiny")
    assert answer["usage"]["total_tokens"] == (
        answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )


def test_a_stream_says_the_same_piece_by_piece(client):
    found = events(client, ASKED)
    parts = deltas(found)
    assert parts[0] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(part.get("content", "") for part in parts) == SUM_TEXT
    uses = [part["calculator"] for part in parts if "calculator" in part]
    assert uses == [{"index": 0, "expression": "3+4"}, {"index": 0, "result": "7"}]
    assert [event["choices"][0]["finish_reason"] for event in found] == [None] * (len(found) - 1) + ["stop"]
    assert len({event["id"] for event in found}) == 1


def test_usage_comes_last_where_it_is_asked_for(client):
    *before, last = events(client, {**ASKED, "stream_options": {"include_usage": True}})
    assert last["choices"] == [] and last["usage"]["completion_tokens"] > 0
    assert [event["usage"] for event in before] == [None] * len(before)
    assert all("usage" not in event for event in events(client, ASKED))
