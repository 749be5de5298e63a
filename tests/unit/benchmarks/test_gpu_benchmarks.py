"""What the benchmarks of a GPU run need: tokens that were prepared, and few packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
