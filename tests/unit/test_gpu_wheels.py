"""What is carried to a GPU machine is all that the GPU check imports beyond what such a machine has."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kernels

ROOT = Path(__file__).parents[2]
ON_THE_MACHINE = ("torch", "triton", "numpy", "safetensors")  # with all that they require
MODULES = (
    "nanochat.data.text.batches",
    "nanochat.evals.bpb",
    "nanochat.model.gpt",
    "nanochat.optim.optimizer",
    "nanochat.recipes",
    "nanochat.train.loop",
    "nanochat.train.state",
    "nanochat.train.training_run",
    *(module.name for module in pkgutil.walk_packages(kernels.__path__, "kernels.")),
)
# Stands in for a machine without other packages: to import one of those fails, as it does there.
PROGRAM = """
import importlib, sys
allowed, modules = (names.split(",") for names in sys.argv[1:])

class Refusal:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is not there", name=name)

sys.meta_path.insert(0, Refusal)
for module in modules:
    importlib.import_module(module)
"""


def _carried():
    lines = (ROOT / "infra/gpu/wheels.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _with_requirements(names):
    found, left = set(), list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found.add(name)
            needs = (Requirement(text) for text in requires(name) or ())
            left += [
                need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return found


def _importable(distributions):
    """Return the top-level modules of distributions, and Python's own."""
    provided = {
        module
        for module, names in packages_distributions().items()
        if distributions.intersection(map(canonicalize_name, names))
    }
    return {*provided, *sys.stdlib_module_names, *sys.builtin_module_names, "kernels", "nanochat"}


def _import(distributions):
    command = [sys.executable, "-c", PROGRAM, ",".join(_importable(distributions)), ",".join(MODULES)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_with_the_wheels_every_module_of_the_gpu_check_can_be_imported():
    run = _import(_with_requirements(ON_THE_MACHINE) | set(_carried()))
    assert run.returncode == 0, run.stderr[-2000:]


def test_without_the_wheels_the_first_import_of_them_fails():
    run = _import(_with_requirements(ON_THE_MACHINE))
    assert "is not there" in run.stderr


def test_each_wheel_has_an_exact_version_that_the_project_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    allowed = {canonicalize_name(r.name): r.specifier for r in map(Requirement, texts)}
    for name, version in _carried().items():
        assert re.fullmatch(r"[0-9.]+", version), name
        assert version in allowed.get(name, Requirement(name).specifier), name


def test_what_the_wheels_require_is_carried_too():
    carried = _carried()
    needed = _with_requirements(["pydantic"])
    assert needed <= set(carried)
