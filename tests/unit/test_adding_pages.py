"""The pages that add a stage and a task, followed word for word in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import apply, blocks, copy_project

ROOT = Path(__file__).parents[2]
NEW = {"adding-a-stage.md": "statistics", "adding-a-task.md": "boolq"}
MOST_FILES = 8


@pytest.fixture(scope="module", params=NEW)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def followed(page, tmp_path_factory):
    """Return a copy of the project that the page was applied to."""
    copy = tmp_path_factory.mktemp("project")
    copy_project(ROOT, copy)
    for block in blocks((ROOT / "docs" / page).read_text(encoding="utf-8")):
        apply(block, copy)
    return copy


def run(folder, *command):
    """Run a Python module of a copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(folder):
    lock = json.loads((folder / "flows/stages.lock").read_text(encoding="utf-8"))
    return {name: entry["code"] for name, entry in lock.items()}


def keys(folder, store):
    plan = json.loads(run(folder, "flows", "plan", "toy", "--json", "--store", str(store)))
    return {planned["node"]: planned["key"] for planned in plan["nodes"]}


def test_the_text_above_each_block_names_its_file(page):
    found = blocks((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(found) > 2
    assert not [block.path for block in found if f"`{block.path}`" not in block.above]


def test_the_pages_own_tests_pass_in_the_copy(page, followed):
    written = [
        b.path for b in blocks((ROOT / "docs" / page).read_text(encoding="utf-8")) if "/test_" in b.path
    ]
    assert written
    assert "passed" in run(followed, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *written)


def test_the_new_code_passes_the_linter_and_may_import_what_it_does(followed):
    run(followed, "ruff", "check", "--no-cache", "flows", "nanochat", "tests")
    run(followed, "ruff", "format", "--check", "--no-cache", "flows", "nanochat", "tests")
    allowed = "tests/unit/test_architecture.py::test_imports_go_only_where_the_table_allows"
    run(followed, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", allowed)


# What of `just check` knows every stage or task by name.
KNOW_ALL = (
    "tests/unit/test_documents.py::test_the_picture_shows_the_stages_that_there_are",
    "tests/unit/test_documents.py::test_the_newest_section_of_the_changelog_names_the_version_of_each_stage",
    "tests/unit/flows/cli/test_document.py",
    "tests/unit/flows/plan/test_plan.py::test_a_new_shard_is_downloaded_and_tokenized_and_no_other",
    "tests/unit/nanochat/data/sources/test_hub.py",
)


def test_the_projects_own_tests_pass_with_the_new_stage_or_task(followed):
    run(followed, "flows.cli.document")
    assert "passed" in run(followed, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *KNOW_ALL)


def test_few_files_know_the_new_name(page, followed):
    word = re.compile(rf"\b{NEW[page]}\b")
    paths = [path for folder in ("flows", "nanochat") for path in (followed / folder).rglob("*.py")]
    found = [path for path in paths if word.search(path.read_text(encoding="utf-8"))]
    assert 1 <= len(found) <= MOST_FILES, found


def test_the_plan_of_toy_keeps_every_key_and_has_the_new_stage(page, followed, tmp_path):
    before, after = keys(ROOT, tmp_path), keys(followed, tmp_path)
    assert after.keys() - before.keys() == ({"statistics"} if page == "adding-a-stage.md" else set())
    assert {node: after[node] for node in before} == before


def test_the_lock_file_gains_the_new_stage_and_no_other_code_changes(page, followed):
    before = digests(followed)
    run(followed, "flows.plan.confirm_code")
    after = digests(followed)
    if page == "adding-a-stage.md":
        assert after.pop("statistics")
        # The card compares a recipe with the published one, so publishing reads what a recipe is.
        assert {name for name in before if after[name] != before[name]} <= {"publish"}
    else:
        assert {name for name in before if after[name] != before[name]} >= {"tasks", "render", "evaluate_sft"}


@pytest.mark.parametrize("page", ["adding-a-task.md"], scope="module", indirect=True)
def test_the_new_task_is_found_at_the_hub_and_not_in_the_toy_world(followed):
    code = """
from nanochat.config import EvaluateConfig, TasksConfig
from nanochat.data.sources.chat_data import resolve_tasks
from nanochat.data.sources.required import require_tasks
from nanochat.errors import ConfigError
asked = EvaluateConfig(chat_tasks=("boolq",))
require_tasks(resolve_tasks(TasksConfig(source="hub", toy=None)), asked)
try:
    require_tasks(resolve_tasks(TasksConfig()), asked)
except ConfigError as error:
    print(error)
"""
    (followed / "ask.py").write_text(code, encoding="utf-8")
    assert "tasks.source toy has no tasks/boolq/validation" in run(followed, "ask")
