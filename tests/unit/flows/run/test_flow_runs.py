"""What flow runs are called, and when a server is asked again."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows.run.flow_runs import FlowRuns, is_away
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
