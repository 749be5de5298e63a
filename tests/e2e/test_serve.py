"""`nanochat serve` as its users meet it: one process, asked by the `openai` client and by curl, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time

import openai
import pytest

from tests.support.serving import ENDLESS, SUM_TEXT, running_server, write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("serve")]

KEY = "correct-horse-battery-staple"
MESSAGES = [{"role": "user", "content": "What is 3 plus 4?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
        },
    }
]


def client_of(server, key="unused", kind=openai.OpenAI):
    web = openai.DefaultHttpxClient if kind is openai.OpenAI else openai.DefaultAsyncHttpxClient
    return kind(
        base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60, http_client=web(trust_env=False)
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that answers with a sum, and needs no key."""
    home = tmp_path_factory.mktemp("sum")
    with running_server(write_tiny_model(home / "sum"), home=home) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A server with one place, which needs a key and whose answers do not end by themselves."""
    home = tmp_path_factory.mktemp("endless")
    model = write_tiny_model(home / "endless", ENDLESS, context=8192)
    options = ("--rows", "1", "--queue", "0")
    with running_server(model, *options, home=home, env={"NANOCHAT_API_KEY": KEY}) as running:
        yield running


@pytest.fixture
def client(server):
    """The `openai` client of that server."""
    with client_of(server) as client:
        yield client


def test_the_openai_client_gets_whole_answers(client):
    answer = client.chat.completions.create(model="sum", messages=MESSAGES, n=2, seed=1, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == [SUM_TEXT] * 2
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    assert "".join(token.token for token in answer.choices[1].logprobs.content) == SUM_TEXT
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].message.model_extra["calculator"][0]["result"] == "7"
    again = client.chat.completions.create(model="sum", messages=MESSAGES)
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_the_openai_client_gets_streams(client):
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="sum", messages=MESSAGES, stream=True, stream_options=options)
    )
    parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(parts) == SUM_TEXT and len(parts) > 5
    assert chunks[-1].usage.completion_tokens > 5
    with client.chat.completions.stream(model="sum", messages=MESSAGES) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == SUM_TEXT


def test_the_asynchronous_client_gets_many_answers_at_once(server):
    async def ask():
        async with client_of(server, kind=openai.AsyncOpenAI) as client:
            create = client.chat.completions.create
            whole = [create(model="sum", messages=MESSAGES) for _ in range(12)]
            stream = await create(model="sum", messages=MESSAGES, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [text, *(answer.choices[0].message.content for answer in await asyncio.gather(*whole))]

    assert asyncio.run(ask()) == [SUM_TEXT] * 13


def test_a_tool_is_called_and_its_result_gone_on_with(client):
    asked = client.chat.completions.create(model="sum", messages=MESSAGES, tools=TOOLS).choices[0]
    (call,) = asked.message.tool_calls
    assert (asked.finish_reason, call.function.name) == ("tool_calls", "calculator")
    assert json.loads(call.function.arguments) == {"expression": "3+4"}
    returned = {"role": "tool", "tool_call_id": call.id, "content": "7"}
    answer = client.chat.completions.create(
        model="sum", messages=[*MESSAGES, asked.message, returned], tools=TOOLS
    )
    assert asked.message.content + answer.choices[0].message.content == SUM_TEXT


def test_texts_are_gone_on_with_and_the_model_is_listed(client):
    text = client.completions.create(model="sum", prompt=["a", "b"], max_tokens=3, logprobs=1, temperature=0)
    assert [choice.finish_reason for choice in text.choices] == ["length"] * 2
    assert len(text.choices[0].logprobs.tokens) == 3
    assert [model.id for model in client.models.list()] == ["sum"]
    assert client.models.retrieve("sum").model_extra["max_model_len"] == 1024


def test_errors_are_those_that_the_client_knows(client, narrow):
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="temperature") as found:
        create(model="sum", messages=MESSAGES, temperature=3)
    assert found.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as found:
        create(model="sum", messages=[{"role": "user", "content": "a" * 2000}])
    assert found.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        create(model="gpt-5", messages=MESSAGES)
    with (
        client_of(narrow, key="another-key-altogether") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    create = (known := client_of(narrow, key=KEY)).chat.completions.create
    with known, create(model="endless", messages=MESSAGES, stream=True) as running:
        next(iter(running))
        with pytest.raises(openai.RateLimitError) as full:
            create(model="endless", messages=MESSAGES)
    assert int(full.value.response.headers["retry-after"]) >= 1


def test_a_client_that_goes_away_frees_its_place(narrow):
    with client_of(narrow, key=KEY) as client:
        for _ in range(3):  # each would be refused if the one before still had its place
            _wait_until(lambda: narrow.metric("nanochat_running_answers", key=KEY) == 0)
            stream = client.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
            next(iter(stream))
            stream.close()
        _wait_until(lambda: narrow.metric("nanochat_running_answers", key=KEY) == 0)
    assert narrow.metric('nanochat_requests_total{outcome="cancelled"}', key=KEY) >= 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_whole_answers_and_streams(server):
    def curl(body):
        command = ["curl", "-sN", "--noproxy", "*", "-H", "content-type: application/json"]
        address = f"{server.url}/v1/chat/completions"
        return subprocess.run(
            [*command, "-d", json.dumps(body), address], capture_output=True, text=True, check=True
        ).stdout

    whole = json.loads(curl({"messages": MESSAGES}))
    assert whole["choices"][0]["message"]["content"] == SUM_TEXT
    events = [
        event.removeprefix("data: ") for event in curl({"messages": MESSAGES, "stream": True}).split("\n\n")
    ]
    assert events[-2:] == ["[DONE]", ""]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-2]]
    assert "".join(delta.get("content", "") for delta in deltas) == SUM_TEXT


def test_sigterm_lets_a_running_answer_finish_and_the_key_was_never_shown(narrow):
    with client_of(narrow, key=KEY) as client:
        stream = client.chat.completions.create(
            model="endless", messages=MESSAGES, stream=True, max_tokens=600
        )
        chunks = iter(stream)
        text = next(chunks).choices[0].delta.content
        narrow.process.send_signal(signal.SIGTERM)
        last = None
        for last in chunks:
            text += last.choices[0].delta.content or ""
    assert last.choices[0].finish_reason == "length"
    assert len(text) == 600
    assert narrow.process.wait(60) == 0
    assert KEY not in "".join(narrow.errors)
    assert "stopping" in "".join(narrow.errors)


def test_a_second_signal_ends_the_server_at_once(server):
    with client_of(server) as client:
        stream = client.completions.create(
            model="sum", prompt="a", stream=True, max_tokens=1000, n=8, temperature=0
        )
        next(iter(stream))
        os.kill(server.process.pid, signal.SIGTERM)
        _wait_until(lambda: any("stopping" in line for line in server.errors))
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(60) == 1
        stream.close()


def _wait_until(holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")
