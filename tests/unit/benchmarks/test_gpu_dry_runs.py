"""What a GPU run measures, on a CPU: every section runs, writes its rows, and finds nothing wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.measurement import read
from tests.benchmarks import short_training as short

ROOT = Path(__file__).parents[3]


def _run(module, folder, *options):
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--results", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_the_step_is_measured_beside_upstreams(tmp_path):
    done = _run("bench_gpu_step", tmp_path, "--device", "cpu", "--sizes", "tiny")
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "step.json")
    sections = {row["section"] for row in found.rows}
    assert sections == {"d20 ours", "d20 upstream", "d20", "d20 decode", "2026-d12 ours"}
    timed = {row["section"]: row for row in found.rows if "median_ms" in row}
    assert timed.keys() == {"d20 ours", "d20 upstream", "2026-d12 ours"}
    assert all(row["low_ms"] <= row["median_ms"] <= row["high_ms"] for row in timed.values())
    assert {(r["type"], r["batch"]) for r in found.rows if r["section"] == "d20 decode"} == {
        (kind, batch) for kind in ("float32", "bfloat16") for batch in (1, 8, 32)
    }
    assert all(row["host_waits"] >= 1 for row in found.rows if "host_waits" in row)
    assert "d20: losses of both sides agree" in {check["name"] for check in found.checks}
    assert not found.wrong
    assert not found.goals  # a dry run reaches none


@pytest.mark.slow
def test_the_short_training_follows_the_cpu_and_learns(tmp_path):
    done = _run("gpu_training", tmp_path, "--device", "cpu", "--sizes", "tiny")
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "training.json")
    assert [row["step"] for row in found.rows if "cpu" in row and "step" in row] == list(
        range(1, short.TINY.compared + 1)
    )
    assert {check["name"] for check in found.checks if check["ok"]} == {
        "initial weights are the CPU's",
        "a restart point gives the weights back",
        "losses are finite",
        "losses follow the CPU's",
        "gradient norms follow the CPU's",
        "the loss falls",
    }
    assert json.loads(done.stdout)["steps"] == short.TINY.steps


def test_without_what_was_prepared_the_training_says_how_to_prepare_it(tmp_path):
    done = _run("gpu_training", tmp_path, "--device", "cpu", "--prepared", str(tmp_path))
    assert done.returncode == 2
    assert "run python -m infra.gpu.prepare" in done.stderr
    assert not (tmp_path / "training.json").exists()


@pytest.mark.parametrize("module", ["bench_gpu_step", "gpu_training"])
def test_only_packages_of_a_bare_gpu_machine_are_imported(module):
    absent = (
        "polars",
        "pyarrow",
        "sentencepiece",
        "tiktoken",
        "yaml",
        "fsspec",
        "prefect",
        "mlflow",
        "typer",
    )
    hidden = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))"
    code = f"{hidden}; import tests.benchmarks.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
