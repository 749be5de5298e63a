"""`nanochat --help` lists every verb with a short sentence, and fits 80 columns."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import typer.main
from typer.testing import CliRunner

from flows.cli.app import app
from flows.run.provenance import commit

VERBS = typer.main.get_command(app).commands
SUMMARY_WIDTH = 60


def test_the_list_of_verbs_is_cut_nowhere_at_80_columns():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    listed = shown.partition("\nCommands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(VERBS)
    assert [line for line in listed if "..." in line or "…" in line or len(line) > 80] == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_first_line_of_a_verb_is_a_short_sentence(verb):
    first = VERBS[verb].help.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= SUMMARY_WIDTH


def test_the_version_is_shown_with_the_commit_of_the_code():
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    known, _ = commit()
    begin = f"nanochat {version('nanochat')}"
    assert shown.stdout.startswith(f"{begin} (commit {known[:12]}" if known else f"{begin}\n")
