"""What the README says can be typed: commands, fields, stages, files and recipes of the justfile exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from flows.cli.app import app
from flows.stages import STAGES
from nanochat import recipes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
COMMAND_LINE = re.compile(r"(?:^|\$ |&& )(?:uv run )?nanochat (?P<words>[a-z].*)$")


def _commands():
    """Return the words after `nanochat` of every command in code spans and shell blocks."""
    lines = [line for kind, body in FENCES if kind in ("bash", "console") for line in body.splitlines()]
    lines += re.findall(r"`([^`]+)`", PROSE)
    found = (COMMAND_LINE.search(line) for line in lines)
    return list(dict.fromkeys(match["words"] for match in found if match))


GROUP = typer.main.get_command(app)


@pytest.mark.parametrize("words", _commands())
def test_each_command_parses_as_the_command_line_does(words):
    verb, *arguments = shlex.split(words, comments=True)
    assert verb in GROUP.commands, f"there is no `nanochat {verb}`"
    context = GROUP.commands[verb].make_context(verb, arguments)
    recipe = context.params.get("recipe")
    if recipe in recipes.PRESETS:
        fields = [o for o in context.params.get("override") or () if not o.startswith("FIELD")]
        assert recipes.find(recipe, fields).name
    else:
        assert recipe in (None, "RECIPE"), f"there is no recipe {recipe!r}"


def test_every_verb_is_in_the_table_of_commands():
    section = TEXT.partition("\n## Commands\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `nanochat (\w+)", section, flags=re.MULTILINE)) == set(GROUP.commands)


def test_the_picture_shows_the_stages_that_there_are():
    picture = next(body for kind, body in FENCES if kind == "mermaid")
    without_labels = re.sub(r'\["[^"]*"\]', "", picture.partition("\n")[2])
    assert set(re.findall(r"\w+", without_labels)) == set(STAGES)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_each_link_leads_to_something(target):
    assert (ROOT / target).exists()


def test_each_just_command_is_in_the_justfile():
    known = set(
        re.findall(r"^([a-z-]+):", (ROOT / "justfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    used = set(re.findall(r"(?:^|`)just ([a-z-]+)", TEXT, flags=re.MULTILINE))
    assert used
    assert used <= known
