"""The files that the parts of a GPU run leave behind."""

from __future__ import annotations

import itertools
import json
import types

import pytest
import torch

from kernels import measurement, timing
from kernels.goals import GOALS, goals_of
from kernels.measurement import Measurement


@pytest.fixture
def part(tmp_path):
    options = measurement.arguments(None).parse_args(["--device", "cpu", "--results", str(tmp_path / "new")])
    return Measurement.start("kernels", options)


def test_each_entry_is_in_the_file_as_soon_as_it_is_made(part):
    part.add_row(op="attention", median_ms=1.5)
    assert json.loads(part.path.read_text())["rows"] == [{"op": "attention", "median_ms": 1.5}]
    part.add_check("finite", False, "NaN at 3")
    part.set_goal("attention forward", 541.0)
    read = measurement.read(part.path)
    assert (read.rows, read.goals, read.wrong) == (part.rows, {"attention forward": 541.0}, ["finite"])
    assert {"device", "torch", "triton", "commit"} <= set(read.about)


def test_a_goal_that_the_part_does_not_have_is_refused(part):
    with pytest.raises(KeyError, match="d20 step"):
        part.set_goal("d20 step", 300.0)


def test_goals_have_one_name_each_and_compare_in_their_direction():
    assert len({goal.name for goal in GOALS}) == len(GOALS)
    forward = goals_of("kernels")[0]
    assert [forward.met(v) for v in (539.9, 540.0, float("nan"))] == [False, True, False]
    step = goals_of("step")[0]
    assert [step.met(v) for v in (384.9, 385.1, float("nan"))] == [True, False, False]


def test_a_call_is_timed_as_often_as_asked_after_its_warm_up():
    calls = []
    times = timing.measure(lambda: calls.append(torch.ones(2) * 2), "cpu", repeats=5, warm_up=2)
    assert len(calls) == 7
    assert 0 < times.low <= times.median <= times.high


def test_only_the_named_kernel_of_a_call_is_timed(monkeypatch):
    triton = pytest.importorskip("triton")
    clock = itertools.count(step=2)
    event = types.SimpleNamespace

    def make():
        made = event(at=None, elapsed_time=lambda end: float(end.at - made.at))
        made.record = lambda: setattr(made, "at", next(clock))
        return made

    def launch(name, moments):
        """Call the hooks as a launch of Triton's does."""
        hooks, launched = triton.knobs.runtime, triton.compiler.compiler.LazyDict({"name": name})
        hooks.launch_enter_hook(launched)
        for _ in range(moments):
            next(clock)
        hooks.launch_exit_hook(launched)

    monkeypatch.setattr(timing, "_event", make)
    monkeypatch.setattr(timing, "_keep_busy", lambda flush: None)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def call():
        launch("_attention_dq_kernel", 4)
        launch("_attention_dkv_kernel", 9)

    times = timing.measure_kernel(call, "attention_dq", repeats=3)
    assert (times.low, times.median, times.high) == (10.0, 10.0, 10.0)
    assert timing.measure_kernel(call, "attention_forward", repeats=3) is None
    assert not triton.knobs.runtime.launch_enter_hook.calls
