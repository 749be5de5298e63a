"""Options of the command line about where and how fast to run reach the stages."""

from __future__ import annotations

import shlex
import threading

import pytest
import torch
from typer.testing import CliRunner

import flows.cli.local_run
from flows.cli.app import app
from flows.run.parameters import RuntimeParameters
from nanochat.errors import ConfigError


class Asked(Exception):
    """Carries the options of a run that is not run."""


@pytest.fixture
def options_of(monkeypatch, tmp_path):
    def refuse(plan, store, settings, options, console):
        raise Asked(options)

    monkeypatch.setattr(flows.cli.local_run, "run_plan", refuse)
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))

    def options_of(*words):
        error = CliRunner().invoke(app, ["run", "toy", *words]).exception
        assert isinstance(error, Asked), error
        return error.args[0]

    return options_of


def test_options_of_the_command_line_become_settings_of_the_stages(options_of):
    words = ("--micro-batch-rows", "3", "--processes", "2", "--threads", "5", "--restart-point-every", "600")
    runtime = RuntimeParameters(**options_of(*words).runtime).to_runtime(threading.Event())
    assert (runtime.micro_batch_rows, runtime.processes, runtime.threads) == (3, 2, 5)
    assert runtime.restart_point_every_s == 600
    unsaid = RuntimeParameters(**options_of().runtime).to_runtime(threading.Event())
    assert (unsaid.micro_batch_rows, unsaid.processes, unsaid.device) == (None, 1, "cpu")


def test_a_gpu_that_is_not_here_is_told_before_anything_is_made(options_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["run", "toy", "--device", "cuda"])
    assert isinstance(result.exception, ConfigError)
    assert "no CUDA device was found" in str(result.exception)
    for words in (("--until", "tokenize"), ("--dispatch", "pools")):  # nothing trains, or elsewhere
        assert options_of("--device", "cuda", *words).runtime["device"] == "cuda"


@pytest.mark.parametrize(
    ("device", "found", "processes"), [("cuda", 8, 8), ("cuda", 0, 1), ("cuda:3", 8, 1), ("cpu", 8, 1)]
)
def test_by_default_there_is_one_rank_for_each_gpu(monkeypatch, device, found, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    assert RuntimeParameters(device=device).to_runtime(threading.Event()).processes == processes
    assert RuntimeParameters(device=device, processes=3).to_runtime(threading.Event()).processes == 3


def test_what_is_suggested_after_a_run_is_the_same_run_whatever_its_options_hold():
    overrides = ("tasks.own=['/my chats/a;b #1.jsonl']", 'sft.prompts=["What\'s $HOME?"]')
    lines = flows.cli.local_run.next_commands("toy", overrides, "/my store")
    chat, again, plan, report, _, serve = [shlex.split(line.partition("   ")[0]) for line in lines]
    options = ["-o", overrides[0], "-o", overrides[1]]
    assert chat[:4] == ["nanochat", "chat", "--store", "/my store"]
    assert again[: len(options) + 3] == ["nanochat", "run", "toy", *options]
    assert plan[: len(options) + 5] == ["nanochat", "plan", "toy", *options, "-o", "sft.epochs=2"]
    assert report[: len(options) + 3] == ["nanochat", "report", "toy", *options]
    assert serve[:4] == ["nanochat", "serve", "--store", "/my store"]
    assert all("--store" in words for words in (chat, again, plan, report))
