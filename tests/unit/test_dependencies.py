"""Every package that the code imports is declared, so that an install from scratch is complete."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("flows", "nanochat", "kernels")
IMPORTED_BY_OTHERS = {
    "protobuf": "sentencepiece's model file",
    "pyopenssl": "model-signing",
    "pysocks": "requests, for MLflow behind a SOCKS proxy",
    "python-socks": "websockets, for Prefect behind a SOCKS proxy",
    "socksio": "httpx, which fails at once without it where the environment names a SOCKS proxy",
}
GIVEN_BY_OTHERS = {
    "_pytest": "pytest",
    "botocore": "s3fs",
    "datasets": "lm-eval",
    "h11": "uvicorn",
    "httpx": "prefect",
    "markdown_it": "rich",
    "packageurl": "cyclonedx-python-lib",
    "packaging": "pytest",
    "sqlalchemy": "mlflow",
    "starlette": "fastapi",
}  # packages that come only with another one

ONLY_IF_INSTALLED = {
    "lm-eval": "lm-evaluation-harness; `nanochat.harness` says how it is installed",
    "transformers": "runs the code that an exported folder of architecture 2026 carries; nothing here does",
}


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _name(requirement):
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _declared():
    return {_name(r) for r in _project()["project"]["dependencies"]}


def _declared_in_extras():
    return {_name(r) for extra in _project()["project"]["optional-dependencies"].values() for r in extra}


def _declared_for_development():
    return _declared() | _declared_in_extras() | {_name(r) for r in _project()["dependency-groups"]["dev"]}


def _imported(*folders):
    """Return top-level names of packages that are not ours or Python's, each with a file that imports it."""
    found = {}
    for path in (p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            found |= {name: path.relative_to(ROOT).as_posix() for name in names}
    ours = {*LAYERS, "infra", "tests", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name.split(".")[0] not in ours}


def _undeclared(imported, declared):
    providers = packages_distributions()
    missing = {}
    for name, path in imported.items():
        top = name.split(".")[0]
        candidates = {_name(d) for d in (*providers.get(top, [top]), GIVEN_BY_OTHERS.get(top, top))}
        if not candidates & declared:
            missing[top] = path
    return missing


def test_what_the_code_imports_is_a_declared_dependency():
    assert _undeclared(_imported(*LAYERS), _declared() | _declared_in_extras() | set(ONLY_IF_INSTALLED)) == {}
    assert set(ONLY_IF_INSTALLED) <= _declared_for_development()


def test_what_tests_and_infra_import_is_declared_for_development():
    assert _undeclared(_imported("infra", "tests"), _declared_for_development()) == {}


def test_modules_that_need_a_hidden_package_have_it_declared():
    """`sentencepiece_model_pb2` imports protobuf, which sentencepiece does not ask for."""
    if any("sentencepiece_model_pb2" in name for name in _imported(*LAYERS)):
        assert "protobuf" in _declared()


@pytest.mark.parametrize("package", sorted(_declared() | _declared_in_extras()))
def test_each_direct_dependency_has_a_lower_and_an_upper_bound(package):
    project = _project()["project"]
    every = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    requirement = next(r for r in every if _name(r) == package)
    assert ">=" in requirement, f"{requirement} has no lower bound"
    calendar_versions = package in (
        "fsspec",
        "s3fs",
    )  # kept in step with each other, no major number to stop at
    assert "<" in requirement or calendar_versions, f"{requirement} has no upper bound"


def test_every_declared_dependency_is_imported_but_those_that_others_import():
    providers = packages_distributions()
    used = {_name(d) for name in _imported(*LAYERS) for d in providers.get(name.split(".")[0], [])}
    assert (_declared() | _declared_in_extras()) - used == set(IMPORTED_BY_OTHERS)
    assert used - _declared() >= set(ONLY_IF_INSTALLED)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_says_that_it_is_typed_and_is_in_the_wheel(layer):
    assert (ROOT / layer / "py.typed").is_file()
    assert layer in _project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
