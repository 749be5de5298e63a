"""What the benchmarks of a GPU run need: tokens that were prepared, and few packages."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.measurement import Measurement
from tests.benchmarks import bench_gpu_step

ROOT = Path(__file__).parents[3]


def _run(module, folder, *options):
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--results", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


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


def test_a_section_that_fails_is_a_failed_check_and_the_next_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_gpu_step, "_let_go", lambda: None)  # it loads the compiler
    run = bench_gpu_step.Run(argparse.Namespace(), Measurement("step", tmp_path, {}))

    def fails():
        raise RuntimeError("no kernel image")

    assert bench_gpu_step.attempted(run, "d20 ours", fails) is None
    assert bench_gpu_step.attempted(run, "d20 upstream", lambda: 3) == 3
    assert run.kept.checks == [
        {"name": "d20 ours: runs", "ok": False, "detail": "RuntimeError: no kernel image"}
    ]
