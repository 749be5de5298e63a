"""The benchmark's command, as far as a CPU shows it: every contender runs, what is wrong is not timed."""

from __future__ import annotations

import argparse
import dataclasses
import time

import pytest
import torch

from kernels.bench import __main__ as command
from kernels.bench import comparison, contenders
from kernels.bench.contenders import EAGER, OURS, Contender
from kernels.bench.ledger import Ceilings, Run
from kernels.bench.listing import tables
from kernels.bench.ops import OPS, rotary_op
from kernels.bench.shapes import TINY, Cost
from kernels.goals import goals_of
from kernels.measurement import Measurement
from kernels.timing import Times

SECOND = dataclasses.replace(TINY, name="second", rows=1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Time every call as 1 ms, and both directions as 3 ms."""
    times = {"forward": Times(1.0, 0.5, 1.5, 0.25), "both": Times(3.0, 2.5, 3.5, 1.5)}

    def measure(call, device, repeats):
        call()
        return times["forward" if call.__name__ == "forward" else "both"]

    monkeypatch.setattr(comparison, "measure", measure)
    part = Measurement.start("kernels", argparse.Namespace(device="cpu", results=tmp_path))
    found = Run(part, "cpu", (TINY, SECOND), time.monotonic() + 600, lambda op: lambda function: function)
    found.ceilings = Ceilings(product=1.0, copy=1000.0)
    return found


def _with(monkeypatch, *others):
    """Let the rotation alone be compared, with these contenders."""

    def make(shape, device, compiler):
        return dataclasses.replace(rotary_op(shape, device, compiler), contenders=others)

    monkeypatch.setattr(comparison, "OPS", {"qk_norm_rotary": make})


def _rows(run, **wanted):
    return [row for row in run.part.rows if wanted.items() <= row.items()]


def test_without_a_gpu_it_says_so_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 0
    assert capsys.readouterr().out.startswith("kernels.bench: no CUDA device")


def test_every_op_is_compared_in_each_version_and_its_goals_are_set(run):
    comparison.compare(run)
    for op in OPS:
        for method in (OURS, EAGER, "torch.compile"):
            for direction in ("forward", "forward+backward"):
                assert len(_rows(run, op=op, method=method, direction=direction)) == 2, (
                    op,
                    method,
                    direction,
                )
    assert len(run.part.checks) == 2 * len(OPS)
    assert run.part.wrong == []
    assert set(run.part.goals) == {goal.name for goal in goals_of("kernels")}
    assert run.part.goals["linear_cross_entropy memory"] == 1.5
    pairs = TINY.length * (TINY.length + 1) / 2
    flops = 10 * TINY.rows * TINY.width * pairs
    assert run.part.goals["attention backward"] == pytest.approx(flops / 2e-3 / 1e12)  # 3 ms less 1 ms
    (row,) = _rows(run, op="attention", shape="tiny", method=OURS, direction="backward")
    assert (row["low_ms"], row["median_ms"], row["high_ms"]) == (1.0, 2.0, 3.0)
    assert row["share"] == pytest.approx(flops / 1e12 / 2e-3)
    assert row["bound"] == "product"
    printed = tables(run.part.rows)
    assert all(f"## {op}\n" in printed for op in OPS)
    assert "* tiny, FlashAttention 2: not installed: flash_attn\n" in printed


def test_a_contender_whose_numbers_are_wrong_is_not_timed_and_ours_fails_a_check(run, monkeypatch):
    def wrong(inputs):
        return lambda: 1.1 * contenders.qk_norm_rotary_reference(*inputs)

    _with(monkeypatch, Contender(OURS, wrong), Contender("other", wrong))
    comparison.compare(run)
    assert all("relative error 0.1" in row["reason"] for row in run.part.rows)
    assert len(run.part.rows) == 4
    assert run.part.wrong == [
        f"qk_norm_rotary, {s}: computes what its definition does" for s in ("tiny", "second")
    ]


def test_one_that_fails_is_a_row_with_its_reason_and_the_others_go_on(run, monkeypatch):
    def fails(error):
        def make(inputs):
            raise error

        return make

    right = contenders.rotary_contenders(None)[0]
    memory = torch.OutOfMemoryError("CUDA out of memory")
    missing = ModuleNotFoundError("No module", name="flash")
    _with(monkeypatch, Contender("big", fails(memory)), Contender("missing", fails(missing)), right)
    comparison.compare(run)
    assert _rows(run, method="big", reason="does not fit in memory")
    assert _rows(run, method="missing", reason="not installed: flash")
    assert _rows(run, method=OURS, direction="forward+backward")


def test_what_compiles_comes_after_all_shapes_but_at_the_first(run, monkeypatch):
    _with(monkeypatch, *contenders.rotary_contenders(lambda function: function))
    comparison.compare(run)
    order = dict.fromkeys((row["shape"], row["method"]) for row in run.part.rows)
    assert list(order) == [
        *(("tiny", OURS), ("tiny", "torch.compile"), ("tiny", EAGER)),
        *(("second", OURS), ("second", EAGER), ("second", "torch.compile")),
    ]


def test_only_what_a_goal_needs_may_take_long_before_all_goals_are_measured():
    compared = {goal.name.split(" ")[0] for goal in goals_of("kernels") if "torch.compile" in goal.name}
    slow = {
        (name, contender.name)
        for name, op in OPS.items()
        for contender in op(TINY, "cpu", None).contenders
        if contender.set_up_s > Contender.set_up_s and not contender.late
    }
    assert slow == {(name, "torch.compile") for name in compared}


def test_what_does_not_fit_into_the_time_is_left_out_by_name(run, monkeypatch):
    _with(monkeypatch, *contenders.rotary_contenders(lambda function: function))
    run.end = time.monotonic() + 12
    monkeypatch.setattr(contenders, "COMPILING_S", 20.0)
    comparison.compare(run)
    assert all(row["reason"].startswith("left out") for row in _rows(run, method="torch.compile"))
    assert _rows(run, method=OURS, direction="forward")
    run.end = time.monotonic() - 1
    comparison.compare(run)
    assert run.part.rows[-1]["reason"] == "left out: no time left"


def test_a_kernel_that_no_configuration_gets_right_is_not_timed(run, monkeypatch):
    _with(monkeypatch, *contenders.rotary_contenders(None))
    run.broken.add("qk_norm_rotary_backward")
    comparison.compare(run)
    assert {row.get("reason") for row in _rows(run, method=OURS)} == {
        "no right configuration of qk_norm_rotary_backward"
    }


def test_the_slower_of_operations_and_bytes_bounds_a_call():
    ceilings = Ceilings(product=100.0, copy=1000.0)  # TFLOP/s, GB/s
    assert ceilings.floor_ms(Cost(flops=2e12, bytes=1e9)) == (20.0, "product")
    assert ceilings.floor_ms(Cost(flops=1e9, bytes=5e9)) == (5.0, "copy")
