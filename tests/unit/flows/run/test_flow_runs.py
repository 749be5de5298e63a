"""What flow runs are called, and when a server is asked again."""

from __future__ import annotations

from json import JSONDecodeError
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.run.flow_runs import FlowRuns, in_words, is_away
from nanochat.errors import ConfigError

RUN = str(uuid4())


def refused(status):
    request = httpx.Request("GET", "http://127.0.0.1/api")
    return PrefectHTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("has", "gets"),
    [
        ("maroon-walrus", "toy-1a2b3c4d"),
        ("toy", "toy-1a2b3c4d"),
        ("before the holidays", "before the holidays"),
        ("toy-00000000", "toy-00000000"),
    ],
)
def test_a_run_is_named_unless_somebody_has_named_it(has, gets):
    run = SimpleNamespace(id=RUN, name=has, state=None)
    client = SimpleNamespace(
        read_flow_run=lambda flow_run_id: run,
        set_flow_run_name=lambda flow_run_id, name: setattr(run, "name", name),
    )
    FlowRuns(client).name(RUN, "toy-1a2b3c4d", instead_of=("toy",))
    assert run.name == gets


@pytest.mark.parametrize("name", ["cpu", "", "nanochat/", "/cpu", "nanochat/cpu/1"])
def test_what_is_not_the_name_of_a_deployment_is_refused_in_words(name):
    with pytest.raises(ConfigError, match=f"'{name}' does not name a deployment"):
        FlowRuns(SimpleNamespace()).create(name, "toy", {})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused(401), "lets nobody in without the right credentials"),
        (JSONDecodeError("Expecting value", "<html>", 0), "does not answer as one: Expecting value"),
        (httpx.InvalidURL("Invalid port: 'bad'"), "does not answer as one: Invalid port"),
        (ObjectNotFound(ValueError("404")), "no longer has the run"),
    ],
    ids=repr,
)
def test_a_server_that_is_none_or_lets_nobody_in_is_named(error, words):
    with (
        temporary_settings({PREFECT_API_URL: "http://server/api"}),
        pytest.raises(ConfigError, match=f"the Prefect server at http://server/api {words}"),
        in_words(),
    ):
        raise error
    with pytest.raises(PrefectHTTPStatusError), in_words():
        raise refused(503)


def test_only_nodes_that_have_begun_are_listed():
    begun = {"download/shard_00000": "Cached", "pretrain": "Running", "humongous-finch": "Running"}
    tasks = [SimpleNamespace(name=name, state_name=state) for name, state in begun.items()]
    tasks += [SimpleNamespace(name="tokenizer-f1a", state_name="Pending")]
    client = SimpleNamespace(read_task_runs=lambda flow_run_filter, limit, offset: tasks)
    assert FlowRuns(client).tasks(RUN) == {"download/shard_00000": "Cached", "pretrain": "Running"}


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("slow"), True),
        (refused(503), True),  # its database is locked
        (refused(404), False),
        (refused(422), False),
        (ValueError("a bug"), False),
    ],
    ids=repr,
)
def test_a_server_is_asked_again_if_it_may_answer_later(error, away):
    assert is_away(error) is away
