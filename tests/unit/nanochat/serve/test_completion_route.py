"""`/v1/completions`: texts and tokens are gone on with; the calculator's part stands in the text."""

from __future__ import annotations

import pytest

from tests.support.serving import tiny_tokenizer
from tests.unit.nanochat.serve.test_chat_route import events

PATH = "/v1/completions"
START = tiny_tokenizer().special("assistant_start")


def completed(client, **body):
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_texts_and_tokens_are_gone_on_with(client):
    found = completed(client, prompt=[[START], [START]], max_tokens=100)
    text = "Let me see: [3+4 = 7]  That makes **7**, or 日本語."
    assert [(c["index"], c["text"], c["finish_reason"]) for c in found["choices"]] == [
        (0, text, "stop"),
        (1, text, "stop"),
    ]
    assert (found["object"], found["usage"]["prompt_tokens"]) == ("text_completion", 2)
    streamed = events(client, {"prompt": [START], "max_tokens": 100}, PATH)
    assert "".join(choice["text"] for event in streamed for choice in event["choices"]) == text
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_text_begins_with_bos_and_the_answer_has_16_tokens_unless_more_are_asked_for(client):
    found = completed(client, prompt=["ab", "c"], temperature=0)
    assert found["usage"]["prompt_tokens"] == 5
    assert found["usage"]["completion_tokens"] == 32
    assert {choice["finish_reason"] for choice in found["choices"]} == {"length"}


def test_each_prompt_has_n_texts_of_their_own(client):
    body = {"prompt": ["a", "b"], "n": 2, "temperature": 2.0, "top_k": 0, "seed": 1}
    found = completed(client, **body)["choices"]
    assert [choice["index"] for choice in found] == [0, 1, 2, 3]
    assert len({choice["text"] for choice in found}) == 4
    assert [choice["text"] for choice in completed(client, **body)["choices"]] == [
        choice["text"] for choice in found
    ]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": [[5], [100_000]]}, "prompt"),
        ({"prompt": ["a"] * 9}, "n"),
        ({"prompt": ["a"] * 3, "n": 3}, "n"),
        ({"prompt": "a" * 32_001}, "prompt"),
        ({"prompt": "a" * 1024}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(client, more, param):
    answer = client.post(PATH, json={"prompt": "a", **more})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_log_probabilities_say_where_in_the_text_each_token_begins(client):
    body = {"prompt": [START], "max_tokens": 100, "logprobs": 1}
    (choice,) = completed(client, **body)["choices"]
    lines = choice["logprobs"]
    assert "".join(lines["tokens"]) == "Let me see:  That makes **7**, or 日本語."
    for token, offset in zip(lines["tokens"], lines["text_offset"], strict=True):
        assert choice["text"].startswith(token, offset)
    assert all(-1 < logprob <= 0 for logprob in lines["token_logprobs"])
    assert [list(top) for top in lines["top_logprobs"]] == [[token] for token in lines["tokens"]]
    assert completed(client, **{**body, "logprobs": 0})["choices"][0]["logprobs"]["top_logprobs"] is None
    streamed = [event["choices"][0]["logprobs"] for event in events(client, body, PATH)]
    assert [token for each in streamed for token in each["tokens"]] == lines["tokens"]
    assert [at for each in streamed for at in each["text_offset"]] == lines["text_offset"]


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (" That makes 7", "Let me see: [3+4 = 7]  That makes **7**, or 日本語."),
        ("see: ", "Let me "),
        ("7**, or", "Let me see: [3+4 = 7]  That makes **"),
    ],
)
def test_log_probabilities_are_those_of_the_shown_tokens_whatever_a_stop_string_held_back(client, stop, text):
    body = {"prompt": [START], "max_tokens": 100, "logprobs": 0, "stop": stop}
    (choice,) = completed(client, **body)["choices"]
    lines = choice["logprobs"]
    assert choice["text"] == text
    for token, offset in zip(lines["tokens"], lines["text_offset"], strict=True):
        rest = text[offset:]
        assert rest and (rest.startswith(token) or token.startswith(rest))
    shown = ""
    for event in events(client, body, PATH):
        (new,) = event["choices"]
        shown += new["text"]
        assert all(offset < len(shown) for offset in new["logprobs"]["text_offset"])
