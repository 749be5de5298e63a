"""`/v1/chat/completions`: the same answer whole and in a stream, and the calculator's part in it."""

from __future__ import annotations

import json

import pytest

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


TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
    },
}


def test_a_client_that_declares_the_calculator_works_out_itself(client):
    asked = {**ASKED, "tools": [TOOL]}
    (choice,) = client.post("/v1/chat/completions", json=asked).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see: "
    assert "calculator" not in choice["message"]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"] == {"name": "calculator", "arguments": '{"expression": "3+4"}'}

    found = events(client, asked)
    parts = deltas(found)
    assert "".join(part.get("content", "") for part in parts) == "Let me see: "
    ((streamed,),) = [part["tool_calls"] for part in parts if "tool_calls" in part]
    assert streamed["index"] == 0 and streamed["function"] == call["function"]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any("calculator" in part for part in parts)

    returned = {"role": "tool", "tool_call_id": call["id"], "content": "7"}
    messages = [*ASKED["messages"], choice["message"], returned]
    whole = client.post("/v1/chat/completions", json={**asked, "messages": messages}).json()["choices"][0]
    assert whole["message"]["content"] == SUM_TEXT.removeprefix("Let me see: ")
    assert whole["finish_reason"] == "stop"


def test_without_a_choice_of_tools_the_server_works_out(client):
    body = {**ASKED, "tools": [TOOL], "tool_choice": "none"}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["message"]["content"] == SUM_TEXT and len(choice["message"]["calculator"]) == 1


def test_an_answer_can_be_sent_back_as_it_came(client):
    message = client.post("/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]
    messages = [*ASKED["messages"], message, {"role": "user", "content": "And 4 plus 5?"}]
    again = client.post("/v1/chat/completions", json={"messages": messages})
    assert again.status_code == 200 and again.json()["choices"][0]["message"]["content"] == SUM_TEXT


def test_several_answers_are_those_that_each_seed_gets_alone(client):
    wild = {**ASKED, "temperature": 2.0, "top_k": 0, "max_tokens": 12}

    def texts(**more):
        found = client.post("/v1/chat/completions", json={**wild, **more}).json()
        assert [choice["index"] for choice in found["choices"]] == list(range(more.get("n", 1)))
        return [choice["message"]["content"] for choice in found["choices"]]

    together = texts(n=3, seed=5)
    assert together == [text for seed in (5, 6, 7) for text in texts(seed=seed)]
    assert texts(n=8) != texts(n=8)  # without a seed each request has its own

    streamed = ["", "", ""]
    for event in events(client, {**wild, "n": 3, "seed": 5}):
        (choice,) = event["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == together


def test_an_answer_ends_before_a_stop_string_and_at_its_limit(client):
    def ended(**more):
        (choice,) = client.post("/v1/chat/completions", json={**ASKED, **more}).json()["choices"]
        return choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]

    assert ended(stop="makes") == ("Let me see:  That ", "stop", None)
    assert ended(stop=["nowhere", " see"]) == ("Let me", "stop", None)
    assert ended(max_tokens=2) == ended(max_completion_tokens=2) == ("Let me", "length", "max_tokens")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 201}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 4097}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": -0.1}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "weather"}}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]},
            "messages[0].content[0].type",
        ),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(client, more, param):
    answer = client.post("/v1/chat/completions", json={**ASKED, **more})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


def test_values_that_change_nothing_are_taken(client):
    neutral = {
        "model": "tiny", "user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
        "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "top_k": -1, "stop": None,
        "response_format": {"type": "text"}, "parallel_tool_calls": True, "tools": None, "n": None,
        "tool_choice": "auto", "reasoning_effort": None, "temperature": None,
    }  # fmt: skip
    answer = client.post("/v1/chat/completions", json={**ASKED, **neutral})
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == SUM_TEXT


def test_another_model_is_not_found(client):
    answer = client.post("/v1/chat/completions", json={**ASKED, "model": "gpt-5"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "'tiny'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_fills_the_context_is_refused_with_its_code(client, stream):
    body = {"messages": [{"role": "user", "content": "a" * 1100}], "stream": stream}
    answer = client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_an_answer_that_fills_the_context_ends_there(client):
    body = {"messages": [{"role": "user", "content": "a" * 1015}]}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "context")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"a"', b"\xff", b"[" * 10_000, b'{"messages": NaN}', b"\x00",
     b'{"messages": [{"role": "user", "content": "\\ud800"}]}'],
)  # fmt: skip
def test_a_body_that_is_not_a_request_is_refused(client, body):
    answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_log_probabilities_are_those_of_the_tokens_of_the_text(client):
    body = {**ASKED, "logprobs": True, "top_logprobs": 2}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    tokens = choice["logprobs"]["content"]
    assert bytes(byte for token in tokens for byte in token["bytes"]).decode() == SUM_TEXT
    assert "".join(token["token"] for token in tokens) == SUM_TEXT
    for token in tokens:
        assert -1 < token["logprob"] <= 0
        first, second = token["top_logprobs"]
        assert (first["token"], first["logprob"]) == (token["token"], token["logprob"])
        assert second["logprob"] < first["logprob"]

    found = events(client, body)
    streamed = [t for event in found for t in (event["choices"][0]["logprobs"] or {}).get("content", ())]
    assert [token["token"] for token in streamed] == [token["token"] for token in tokens]
    (plain,) = client.post("/v1/chat/completions", json={**ASKED, "logprobs": True}).json()["choices"]
    assert [token["top_logprobs"] for token in plain["logprobs"]["content"]] == [[]] * len(tokens)
