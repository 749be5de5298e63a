"""The layers and their one direction, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("flows", "nanochat", "kernels")  # each may import itself and those after it


def _modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _importers(package: str, folder: str = ".") -> set[str]:
    """Return the files below `folder` that import `package`."""
    return {
        path.relative_to(ROOT).as_posix()
        for layer in LAYERS
        for path in _modules(layer)
        if path.relative_to(ROOT).as_posix().startswith(folder.removeprefix("."))
        and any(name == package or name.startswith(f"{package}.") for name in _imports(path))
    }


@pytest.mark.parametrize("position", range(len(LAYERS)))
def test_imports_point_from_flows_to_nanochat_to_kernels(position):
    layer, above = LAYERS[position], LAYERS[:position]
    assert _modules(layer), f"{layer} has no modules: the test looks in the wrong place"
    for upper in above:
        assert not _importers(upper, layer), f"{layer} imports {upper}"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("prefect", {"flows/engine.py", "flows/pipeline.py"}),
        ("mlflow", {"nanochat/tracking/pipeline_tracker.py", "nanochat/tracking_mlflow.py"}),
        ("triton", set()),
        ("typer", {"flows/cli.py", "flows/cli_options.py", "flows/model_commands.py"}),
    ],
)
def test_each_big_package_is_imported_in_its_one_place(package, allowed):
    importers = {path for path in _importers(package) if not path.startswith("kernels/")}
    assert importers <= allowed


def test_config_imports_nothing_of_ours():
    imported = {i for path in (ROOT / "nanochat/config").glob("*.py") for i in _imports(path)}
    assert not {i for i in imported if i.split(".")[0] in LAYERS and not i.startswith("nanochat.config")}


def test_model_knows_nothing_of_training_and_training_nothing_of_eval_tasks():
    assert not _importers("nanochat.train", "nanochat/model") | _importers(
        "nanochat.tracking.pipeline_tracker", "nanochat/model"
    )
    tasks = ("choice", "core", "generative", "humaneval", "evaluate")
    assert not {f for task in tasks for f in _importers(f"nanochat.evals.{task}", "nanochat/train")}


def test_the_command_line_starts_without_the_heavy_packages():
    heavy = ("torch", "prefect", "mlflow", "polars", "matplotlib")
    code = f"import sys, flows.cli; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_no_file_is_a_drawer_for_everything():
    names = {path.name for layer in LAYERS for path in _modules(layer)}
    assert not names & {"utils.py", "common.py", "helpers.py"}
