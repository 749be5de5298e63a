"""The tests of a GPU run on a CPU, with nothing but the packages that a GPU machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from kernels.measurement import read
from tests.gpu.compile_ahead import launch
from tests.gpu.operations import CASES

ROOT = Path(__file__).parents[3]
COMMAND = (
    "-m",
    "pytest",
    "-c",
    "tests/gpu/pytest.ini",
    "--rootdir",
    ".",
    "--confcutdir",
    "tests/gpu",
    "tests/gpu",
)
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
    } - {"flows", "nanochat", "kernels"}


@pytest.mark.slow
def test_every_test_passes_on_a_cpu_with_few_packages(tmp_path):
    hidden = _not_allowed()
    assert {"prefect", "pyarrow", "sentencepiece", "hypothesis", "xdist"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = (
        "--device",
        "cpu",
        "--sizes",
        "tiny",
        "--seconds",
        "1200",
        "--results",
        str(tmp_path / "results"),
    )
    command = [sys.executable, *COMMAND, *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    held = read(tmp_path / "results/tests.json")
    assert held.wrong == []
    assert [row for row in held.rows if "skipped" in row] == []
    assert held.rows[0] == {"collected": len(held.checks)}
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests/gpu").glob("test_*.py")}
    assert {check["name"].partition(":")[0] for check in held.checks} == files
    assert sum(check["name"].startswith("operations") for check in held.checks) == len(CASES)
    assert held.about["device"].startswith("cpu")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_compiled_ahead_is_each_kernel_of_the_op(case, monkeypatch):
    triton = pytest.importorskip("triton")
    from kernels import configs
    from tests.support.kernels.fake_driver import dry_run

    launched = []
    monkeypatch.setattr(
        triton.runtime.JITFunction, "run", lambda self, *_, **__: launched.append(self.__name__)
    )
    with dry_run(90):
        launch(case, "full")
    rows = {row.kernel for row in configs.TABLE if case.uses(row)}
    assert launched and {name.removeprefix("_").removesuffix("_kernel") for name in launched} <= rows
