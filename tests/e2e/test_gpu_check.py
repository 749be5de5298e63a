"""The GPU check on a CPU, with nothing but the packages that a GPU machine has: every part and line of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from kernels.measurement import read
from tests.benchmarks import short_training as short
from tests.gpu.operations import CASES

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("gpu check"),
]
ROOT = Path(__file__).parents[2]
ALLOWED = ("torch", "triton", "numpy", "pydantic", "safetensors", "pytest")
# Python imports this when it starts: packages that are not allowed are as if not installed.
HIDING = """
from importlib.machinery import PathFinder

class Hiding:
    stock = PathFinder.find_spec

    def __call__(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else self.stock(name, path, target)

PathFinder.find_spec = Hiding()  # whoever keeps it must not get a method of itself
"""


def _with_what_they_require(packages):
    found, left = set(), list(packages)
    while left:
        package = re.split(r"[<>=!~;\[( ]", left.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if package not in found:
            found.add(package)
            try:
                left += [r for r in requires(package) or [] if "extra ==" not in r]
            except PackageNotFoundError:  # of another system
                continue
    return found


def _not_allowed():
    allowed = _with_what_they_require(ALLOWED)
    return {
        module
        for module, packages in packages_distributions().items()
        if not allowed & {package.lower().replace("_", "-") for package in packages}
    } - {"flows", "nanochat", "kernels", "tests"}  # some package claims the last name for itself


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """The finished process, and the folder of its results."""
    folder = tmp_path_factory.mktemp("gpu")
    hidden = _not_allowed()
    assert {"prefect", "pyarrow", "sentencepiece", "hypothesis", "xdist", "yaml"} <= hidden
    (folder / "sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = (
        "--device",
        "cpu",
        "--sizes",
        "tiny",
        "--seconds",
        "3600",
        "--results",
        str(folder / "results"),
    )
    command = [sys.executable, "infra/gpu/check.py", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, folder / "results"


def test_it_ends_well_with_its_table_last(dry_run):
    done, folder = dry_run
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert done.stdout.endswith("Nothing is wrong.\n")
    assert done.stdout == (folder / "summary.md").read_text()
    assert "| dry run |" in done.stdout and "| met |" not in done.stdout
    for part in ("tests", "kernels", "step", "training"):
        assert re.search(rf"\| {part} \| \d+ \| [1-9]\d* \| 0 \| whole \|", done.stdout)


def test_every_test_ran_and_passed(dry_run):
    held = read(dry_run[1] / "tests.json")
    # Where no row has variants there is nothing to parametrize with.
    assert [row for row in held.rows if row.get("skipped", "got empty")[:9] != "got empty"] == []
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests/gpu").glob("test_*.py")}
    assert files == {check["name"].partition(":")[0] for check in held.checks}
    assert sum(check["name"].startswith("operations") for check in held.checks) == len(CASES)


def test_the_kernels_were_chosen_and_compared(dry_run):
    held = read(dry_run[1] / "kernels.json")
    ops = {"attention", "linear_cross_entropy", "relu_squared_mlp", "qk_norm_rotary"}
    assert ops <= {row.get("op") for row in held.rows if row.get("method") == "ours"}
    assert (dry_run[1] / "chosen.txt").read_text().startswith('"""')


def test_the_step_was_measured_beside_upstreams(dry_run):
    held = read(dry_run[1] / "step.json")
    assert {row["section"] for row in held.rows} == {
        *("d20 ours", "d20 upstream", "d20", "d20 decode", "2026-d12 ours")
    }
    timed = {row["section"]: row for row in held.rows if "median_ms" in row}
    assert timed.keys() == {"d20 ours", "d20 upstream", "2026-d12 ours"}
    assert all(row["low_ms"] <= row["median_ms"] <= row["high_ms"] for row in timed.values())
    assert {(r["type"], r["batch"]) for r in held.rows if r["section"] == "d20 decode"} == {
        (kind, batch) for kind in ("float32", "bfloat16") for batch in (1, 8, 32)
    }
    assert all(row["host_waits"] >= 1 for row in held.rows if "host_waits" in row)
    assert "d20: losses of both sides agree" in {check["name"] for check in held.checks}
    assert not held.goals  # a dry run reaches none


def test_the_short_training_followed_the_cpu_and_learnt(dry_run):
    held = read(dry_run[1] / "training.json")
    compared = [row["step"] for row in held.rows if "cpu" in row and "step" in row]
    assert compared == list(range(1, short.TINY.compared + 1))
    assert {check["name"] for check in held.checks} == {
        "initial weights are the CPU's",
        "a restart point gives the weights back",
        "losses are finite",
        "losses follow the CPU's",
        "gradient norms follow the CPU's",
        "the loss falls",
    }
