"""What the documents show is what commands print, and every command and cell of the examples runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, RUN_TOY, Nanochat
from tests.support.documents import DOCUMENTS, Shown, difference, fences, name_of, shown
from tests.support.notebook import code_cells

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("toy")]

EXAMPLES = sorted((ROOT / "examples").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
READ_ONLY = [s for path in DOCUMENTS if path not in EXAMPLES for s in shown(path)]


@pytest.fixture
def finished(toy, tmp_path):
    """A copy of the home of the finished toy run, for commands that write into it."""
    shutil.copytree(toy.nanochat.home, tmp_path / "home")
    return Nanochat(tmp_path / "home", {})


def run_in(folder: Path, nanochat: Nanochat, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would, in an empty folder; but training on one thread, beside other tests."""
    if command[:2] == ("nanochat", "run"):
        command = (*command, *RUN_TOY[2:])
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": tools, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    return subprocess.run(
        command, cwd=folder, env={**nanochat.env, **own}, capture_output=True, text=True, timeout=600
    )


def assert_as_shown(example: Shown, done: subprocess.CompletedProcess[str]) -> None:
    """Assert that a document shows what was printed; where both streams are, either may come first."""
    streams = [done.stdout.splitlines(), done.stderr.splitlines()]
    found = [difference(example.lines, first + second) for first, second in (streams, streams[::-1])]
    assert None in found, f"not as shown: {found}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("example", READ_ONLY, ids=lambda example: example.name)
def test_a_document_shows_what_the_command_prints(example, toy, tmp_path):
    assert_as_shown(example, run_in(tmp_path, toy.nanochat, *shlex.split(example.command)))


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_commands_of_an_example_run_in_order_and_print_what_it_shows(page, finished, tmp_path):
    folder = tmp_path / "reader"
    folder.mkdir()
    outputs = iter(shown(page))
    for kind, body in fences(page.read_text(encoding="utf-8")):
        if kind == "console":
            for _ in re.findall(r"^\$ ", body, flags=re.MULTILINE):
                example = next(outputs)
                assert_as_shown(example, run_in(folder, finished, *shlex.split(example.command)))
        elif kind == "bash":
            done = run_in(folder, finished, "bash", "-euo", "pipefail", "-c", body)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_cells_of_a_notebook_run_one_after_another(notebook, finished, tmp_path):
    command = (sys.executable, "-m", "tests.support.notebook", str(notebook))
    done = run_in(tmp_path, finished, *command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_kept_without_its_outputs(notebook):
    cells = code_cells(notebook)
    assert cells
    assert [c for c in cells if c["outputs"] or c["execution_count"] is not None] == []


def test_every_example_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name_of(p) for p in (*EXAMPLES, *NOTEBOOKS) if f"({name_of(p)})" not in readme] == []
