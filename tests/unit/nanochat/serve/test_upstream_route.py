"""`/chat/completions` and `/stats`: what programs written for upstream's server expect."""

from __future__ import annotations

import json

import pytest

ASKED = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}]}


def test_tokens_come_as_upstream_sends_them_and_done_is_last(client):
    with client.stream(
        "POST", "/chat/completions", json={**ASKED, "temperature": 0.8, "top_k": 50}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        raw = answer.read().decode()
    found = [json.loads(event.removeprefix("data: ")) for event in raw.split("\n\n") if event]
    assert found.pop() == {"done": True}
    assert {event["gpu"] for event in found} == {0}
    text = "".join(event["token"] for event in found)
    assert text == "Let me see: [3+4 = 7]  That makes **7**, or 日本語."
    assert len(found) > 5


def test_a_character_of_several_tokens_is_never_sent_in_part(client):
    wild = {**ASKED, "temperature": 2.0, "top_k": 0, "max_tokens": 40}
    with client.stream("POST", "/chat/completions", json=wild) as answer:
        answer.read().decode("utf-8", errors="strict")


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 2.5},
        {"top_k": 201},
        {"max_tokens": 0},
        {"max_tokens": 5000},
        {"messages": []},
        {"messages": [{"role": "tool", "content": "7"}]},
        {"messages": [{"role": "user", "content": "a" * 8001}]},
        {"messages": [{"role": "user", "content": "a"}] * 501},
    ],
)
def test_upstreams_limits_hold(client, more):
    assert client.post("/chat/completions", json={**ASKED, **more}).status_code == 400


def test_stats_counts_the_engines(client):
    assert client.get("/stats").json() == {
        "total_workers": 1,
        "available_workers": 1,
        "busy_workers": 0,
        "workers": [{"gpu_id": 0, "device": "cpu"}],
    }
