"""`nanochat submit` against a server that is acted: what is asked for, what is shown, how it ends."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flows.cli import submit
from flows.cli.app import app
from flows.run import flow_runs
from flows.run.flow_runs import FlowRunNow

NEW = FlowRunNow("0" * 8, "toy", "Scheduled", "SCHEDULED", "", final=False)
RUNNING = replace(NEW, name="toy-1a2b3c4d", state="Running", kind="RUNNING")
DONE = replace(RUNNING, state="Completed", kind="COMPLETED", final=True)
FAILED = replace(RUNNING, state="Failed", kind="FAILED", message="stage sft failed: no rows", final=True)


class Acted:
    """A server that gives its answers one after the other; an exception among them is raised."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.asked_for = ()

    def create(self, deployment, name, parameters):
        self.asked_for = (deployment, name, parameters)
        return NEW

    def now(self, flow_run_id):
        answer = next(self.answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def tasks(self, flow_run_id):
        return {"tokenizer": "Completed"}


@pytest.fixture
def submitted(monkeypatch):
    def submitted(server, *words):
        @contextmanager
        def opened():
            yield server

        monkeypatch.setattr(flow_runs, "flow_runs", opened)
        monkeypatch.setattr(submit, "_LOOK_S", 0.0)
        return CliRunner().invoke(app, ["submit", "toy", *words])

    return submitted


def test_a_run_is_asked_for_by_name_and_followed_to_its_end(submitted):
    server = Acted(RUNNING, DONE)
    said = submitted(server, "-o", "depth=6", "--until", "sft", "--force", "sft", "--device", "cuda")
    assert server.asked_for == (
        "nanochat/cpu",
        "toy",
        {
            "recipe": "toy", "overrides": ["depth=6"], "until": "sft", "force": ["sft"],
            "runtime": {"device": "cuda"},
        },
    )  # fmt: skip
    assert said.exit_code == 0
    assert said.stdout == "toy-1a2b3c4d: Completed\n"
    assert said.stderr.count("toy-1a2b3c4d: Running") == 1 and said.stderr.count("tokenizer") == 1
    assert NEW.id in said.stderr


def test_a_run_that_failed_says_why_and_fails(submitted):
    said = submitted(Acted(RUNNING, FAILED), "--json")
    assert said.exit_code == 1
    assert json.loads(said.stdout) == {
        "flow_run_id": NEW.id, "name": "toy-1a2b3c4d", "page": FAILED.page, "state": "Failed",
        "message": "stage sft failed: no rows",
    }  # fmt: skip


def test_a_run_is_followed_through_an_outage_of_the_server(submitted):
    said = submitted(Acted(RUNNING, ConnectionRefusedError("no"), ConnectionRefusedError("no"), DONE))
    assert said.exit_code == 0
    assert said.stderr.count("does not answer; still asking") == 1
    assert said.stderr.count("answers again") == 1


def test_a_detached_run_is_not_waited_for(submitted):
    said = submitted(Acted(), "--detach")
    assert (said.exit_code, said.stdout) == (0, "toy: Scheduled\n")


def test_ctrl_c_leaves_the_run_and_says_how_to_end_it(submitted):
    said = submitted(Acted(RUNNING, KeyboardInterrupt()))
    assert said.exit_code == 1
    assert f"toy-1a2b3c4d goes on; to end it: prefect flow-run cancel {NEW.id}" in said.stderr
