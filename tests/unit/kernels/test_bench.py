"""The GPU benchmark, as far as a CPU shows it: every method runs, goals are judged, results written."""

from __future__ import annotations

import csv

import pytest
import torch

from kernels import bench
from kernels.bench import Result, Sizes

TINY = Sizes(rows=1, length=16, width=32, head_dim=16, vocab=64, device="cpu", dtype=torch.float32)


def test_without_a_gpu_it_says_so_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main()
    assert capsys.readouterr().out.startswith("kernels.bench: no CUDA device")


def test_every_op_is_timed_in_each_version_and_its_goals_are_judged(capsys):
    results = bench.run(TINY, compiler=lambda function: function, repeats=2)
    found = {(r.op, r.method) for r in results}
    for op in ("linear_cross_entropy", "relu_squared_mlp", "qk_norm_rotary"):
        assert {(op, method) for method in ("ours", "torch.compile", "eager")} <= found
    assert all(r.milliseconds > 0 and r.tflops >= 0 for r in results)
    printed = capsys.readouterr().out
    assert all(goal.text in printed for op in {r.op for r in results} for goal in bench.GOALS[op])


def test_all_versions_of_an_op_compute_the_same():
    for _, calls in bench.methods(TINY, compiler=lambda function: function).values():
        ours, *others = [call().detach() for call in calls.values()]
        for other in others:  # SDPA has heads before positions
            other = other if other.shape == ours.shape else other.transpose(1, 2)
            torch.testing.assert_close(ours, other)


@pytest.mark.parametrize(("milliseconds", "verdicts"), [(59.0, [True, True]), (61.0, [False, False])])
def test_goals_compare_with_the_limit_and_with_the_other_version(milliseconds, verdicts):
    results = {
        "ours": Result("linear_cross_entropy", "ours", milliseconds, 500.0, 1.4),
        "torch.compile": Result("linear_cross_entropy", "torch.compile", 60.0, 500.0, 20.0),
    }
    goals = bench.GOALS["linear_cross_entropy"]
    assert [goals[0].met(results), goals[2].met(results)] == verdicts
    assert goals[1].met(results)


def test_results_are_written_with_device_versions_and_commit(tmp_path):
    path = tmp_path / "results.csv"
    bench.write(path, "Some GPU", [Result("op", "ours", 1.5, 2.5, 0.25)])
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["ms"], row["device"], row["torch"]) == ("1.500", "Some GPU", torch.__version__)
    assert {"cuda", "triton", "commit", "peak_gib"} <= set(row)
