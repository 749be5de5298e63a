"""The layers, the packages in them and who may import whom, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import circles, forbidden, import_graph, importers

ROOT = Path(__file__).parents[2]
LAYERS = ("flows", "nanochat", "kernels")  # each may import itself and those after it
GRAPH = import_graph(ROOT, LAYERS)

# What each package may import besides itself. From top to bottom in `flows`:
_STAGES = ("flows.stage", "flows.stages")
_PLAN = (*_STAGES, "flows.dag", "flows.plan")
_RUN = (*_PLAN, "flows.display", "flows.run")
_BASICS = (
    *("nanochat.config", "nanochat.errors", "nanochat.printable", "nanochat.runtime"),
    *("nanochat.system_errors", "nanochat.writing", "nanochat.credentials", "nanochat.file_digest"),
)
_ANYWHERE_IN_FLOWS = ("flows.store", "flows.settings", "flows.proxies", "nanochat", "kernels")
_DATA = ("nanochat.data.chat", "nanochat.data.text")
_MODEL = ("nanochat.model", "nanochat.tokenizer")
ALLOWED = {
    "flows": (),
    "flows.__main__": ("flows.cli",),
    "flows.cli": (*_RUN, "flows.models", "flows.pipeline", "flows.report", *_ANYWHERE_IN_FLOWS),
    "flows.models": (*_RUN, *_ANYWHERE_IN_FLOWS),
    "flows.pipeline": (*_RUN, *_ANYWHERE_IN_FLOWS),
    "flows.report": (*_PLAN, "flows.display.quantities", "flows.run.headline", *_ANYWHERE_IN_FLOWS),
    "flows.run": (*_PLAN, "flows.display", *_ANYWHERE_IN_FLOWS),
    "flows.display": (*_PLAN, *_ANYWHERE_IN_FLOWS),
    "flows.plan": (*_STAGES, "flows.dag", *_ANYWHERE_IN_FLOWS),
    "flows.dag": (*_STAGES, *_ANYWHERE_IN_FLOWS),
    "flows.stages": ("flows.stage",),
    "flows.stage": _BASICS,
    "flows.store": (
        *("flows.settings", "nanochat.errors", "nanochat.file_digest"),
        *("nanochat.runtime", "nanochat.system_errors"),
    ),
    "flows.settings": ("nanochat.credentials", "nanochat.errors", "nanochat.sqlite_urls"),
    "flows.proxies": ("nanochat.errors",),
    "nanochat": (),
    "nanochat.config": ("nanochat.credentials",),
    "nanochat.errors": ("nanochat.credentials", "nanochat.printable"),
    "nanochat.credentials": (),
    "nanochat.file_digest": (),
    "nanochat.printable": (),
    "nanochat.runtime": ("nanochat.errors",),
    "nanochat.sqlite_urls": (),
    "nanochat.system_errors": ("nanochat.errors",),
    "nanochat.writing": ("nanochat.errors", "nanochat.system_errors"),
    "nanochat.tokenizer": _BASICS,
    "nanochat.model": (*_BASICS, "kernels"),
    "nanochat.optim": (*_BASICS, "nanochat.model"),
    "nanochat.recipes": (*_BASICS, "nanochat.model"),
    "nanochat.costs": (*_BASICS, "nanochat.data", "nanochat.model", "nanochat.recipes"),
    "nanochat.data": (),
    "nanochat.data.text": (*_BASICS, "nanochat.tokenizer"),
    "nanochat.data.chat": (*_BASICS, "nanochat.tokenizer", "nanochat.data.text"),
    "nanochat.data.toy_world": (*_BASICS, "nanochat.data.chat"),
    "nanochat.data.sources": (*_BASICS, "nanochat.data.chat", "nanochat.data.toy_world"),
    "nanochat.data.shard_report": (*_DATA, "nanochat.tokenizer"),
    "nanochat.chat": (*_BASICS, *_MODEL),
    "nanochat.chat.conversation_file": (*_BASICS, *_MODEL, "nanochat.data.chat.messages"),
    "nanochat.terminal": (*_BASICS, *_MODEL, "nanochat.chat"),
    "nanochat.serve": (*_BASICS, *_MODEL, "nanochat.chat"),
    "nanochat.ranks": _BASICS,
    "nanochat.evals": (*_BASICS, *_DATA, *_MODEL, "nanochat.chat", "nanochat.ranks"),
    "nanochat.train": (
        *(*_BASICS, *_DATA, *_MODEL, "nanochat.optim", "nanochat.ranks"),
        *("nanochat.chat", "nanochat.evals.bpb"),  # an evaluation task would decide what is trained
    ),
    "nanochat.formats": (*_BASICS, *_MODEL),
    "nanochat.formats.transformers_2026": (),  # code of exported folders
    "nanochat.harness": (
        *(*_BASICS, "nanochat.chat", "nanochat.data.chat", "nanochat.evals"),
        *("nanochat.formats", *_MODEL),
    ),
    "nanochat.publish": (
        *(*_BASICS, *_MODEL),
        *("nanochat.data.chat", "nanochat.evals", "nanochat.formats", "nanochat.recipes"),
        *("nanochat.chat.calculator", "nanochat.data.sources.hub_client"),
    ),
    "nanochat.tracking": (
        "nanochat.credentials",
        "nanochat.errors",
        "nanochat.runtime",
        "nanochat.sqlite_urls",
    ),
    "kernels": (),
}

# The one place of each big package; a file that is gone from here is a mistake as well.
PLACES = {
    "prefect": {
        "flows.pipeline",
        "flows.run.cancellation",
        "flows.run.flow_runs",
        "flows.run.pool",
        "flows.run.prefect_engine",
        "flows.run.progress_artifact",
        "flows.run.run_artifacts",
    },
    "mlflow": {"nanochat.tracking.mlflow_sink"},
    "triton": {"kernels.language"},
    "huggingface_hub": {"nanochat.data.sources.hub_client", "nanochat.publish.hub_upload"},
    "lm_eval": {"nanochat.harness.adapter"},
    "transformers": {
        "nanochat.formats.transformers_2026.configuration_nanochat2026",
        "nanochat.formats.transformers_2026.modeling_nanochat2026",
    },
}


def test_imports_go_only_where_the_table_allows():
    assert {module.partition(".")[0] for module in GRAPH} == set(LAYERS)
    assert not forbidden(GRAPH, ALLOWED)


def test_every_package_of_the_table_exists():
    assert set(ALLOWED) <= GRAPH.keys()
    assert {ok for allowed in ALLOWED.values() for ok in allowed} <= GRAPH.keys()


def test_no_two_files_import_each_other():
    assert not circles(GRAPH)


@pytest.mark.parametrize("package", PLACES)
def test_each_big_package_is_imported_in_its_one_place(package):
    assert importers(GRAPH, package) == PLACES[package]


def test_nothing_imports_the_tests():
    assert not importers(GRAPH, "tests")


def test_tracking_is_imported_by_flows_alone():
    assert {m.partition(".")[0] for m in importers(GRAPH, "nanochat.tracking")} - {"flows"} == {"nanochat"}
    assert all(m.startswith(("flows.", "nanochat.tracking")) for m in importers(GRAPH, "nanochat.tracking"))


def test_the_command_line_is_parsed_in_one_package():
    assert all(module.startswith("flows.cli.") for module in importers(GRAPH, "typer"))
    assert importers(GRAPH, "typer")


_PLANTED = {  # file -> a line that must not be in it
    "upwards": ("kernels/checks.py", "import nanochat.errors"),
    "layer": ("nanochat/errors.py", "from flows import settings"),
    "direction": ("flows/plan/plan.py", "from flows.run.session import Session"),
    "store": ("flows/store/store.py", "from flows.plan import make_plan"),
    "config": ("nanochat/config/model.py", "from nanochat.errors import ConfigError"),
    "evaluation": ("nanochat/train/loop.py", "from nanochat.evals import choice"),
    "inside a function": ("nanochat/model/gpt.py", "def late():\n    from nanochat.optim import muon"),
    "new package": ("nanochat/utilities/text.py", "from nanochat import errors"),
}


@pytest.mark.parametrize("kind", _PLANTED)
def test_a_planted_import_is_found(kind, tmp_path):
    planted, line = _PLANTED[kind]
    _copy(tmp_path)
    assert not forbidden(import_graph(tmp_path, LAYERS), ALLOWED)
    _plant(tmp_path / planted, line)
    (found,) = forbidden(import_graph(tmp_path, LAYERS), ALLOWED)
    assert found.startswith(planted.removesuffix(".py").replace("/", "."))


def test_a_planted_circle_is_found(tmp_path):
    _copy(tmp_path)
    _plant(tmp_path / "flows/store/fingerprint.py", "from flows.store.store import Store")
    (circle,) = circles(import_graph(tmp_path, LAYERS))
    assert {"flows.store.fingerprint", "flows.store.store"} <= set(circle)


@pytest.mark.parametrize("package", PLACES)
def test_a_planted_import_of_a_big_package_is_found(package, tmp_path):
    _copy(tmp_path)
    _plant(tmp_path / "flows/dag.py", f"def late():\n    import {package}.anything")
    assert importers(import_graph(tmp_path, LAYERS), package) == PLACES[package] | {"flows.dag"}


def test_the_command_line_starts_without_the_heavy_packages():
    heavy = ("torch", "prefect", "mlflow", "polars", "matplotlib", "huggingface_hub")
    code = f"import sys, flows.cli.app; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_all_that_is_printed_passes_where_it_is_made_printable():
    printing = {"print", "Console", "StreamHandler", "stdout.write", "stderr.write"}
    found = {
        module
        for module, path in _files()
        if module.startswith(("flows.", "nanochat."))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ".".join(ast.unparse(node.func).split(".")[-2:]) in printing
    }
    # The script in a published folder makes printable what it prints.
    assert found == {"flows.cli.output", "flows.display.clean", "nanochat.publish.generate_cpu"}


def test_no_class_has_the_name_of_another():
    names = [
        (node.name, module)
        for module, path in _files()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    twice = {name: [m for n, m in names if n == name] for name, _ in names}
    assert not {name: modules for name, modules in twice.items() if len(modules) > 1}


# A file's name that stands for the same thing in several packages; every other name is unique.
_ALIKE = {
    "__init__",
    "__main__",
    "base",
    "cpu",
    "gpu",
    "op",
    "plan",
    "recipes",
    "run",
    "score",
    "spelling",
    "store",
}


def test_no_file_has_the_name_of_another_in_a_different_meaning():
    stems = [path.stem for _, path in _files()]
    assert {stem for stem in stems if stems.count(stem) > 1} <= _ALIKE
    assert not set(stems) & {"utils", "common", "helpers", "misc"}


def _files():
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), path)
        for layer in LAYERS
        for path in sorted((ROOT / layer).rglob("*.py"))
    ]


def _copy(target):
    """Copy the code of all layers, so that a violation can be planted."""
    for _, path in _files():
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def _plant(path, line):
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
