"""`docs/recipes.md` and `docs/commands.md` are what the code is today, and all of it."""

from __future__ import annotations

import re

import pytest
import typer.main

from flows.cli import document
from flows.cli.app import app
from nanochat import recipes
from nanochat.recipes.overrides import field_names

PAGES = document.pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_docs_is_what_the_code_writes(name):
    assert (document.DOCS / name).read_text(encoding="utf-8") == PAGES[name], (
        f"docs/{name} is stale: run `just docs` (uv run python -m flows.cli.document) and commit it"
    )


@pytest.mark.parametrize("preset", recipes.PRESETS)
def test_every_field_of_a_preset_stands_on_the_page_with_a_meaning(preset):
    meanings = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \| ", PAGES["recipes.md"], flags=re.MULTILINE))
    fields = [name for name, _, _ in field_names(recipes.find(preset))]
    assert [name for name in fields if not meanings.get(name)] == []


def test_a_field_is_shown_with_the_value_of_each_preset_that_differs():
    row = next(
        line for line in PAGES["recipes.md"].splitlines() if line.startswith("| `evaluate.max_problems`")
    )
    assert row.endswith("| `None`<br>`100` in toy<br>`50` in laptop |")


def test_every_option_of_every_verb_stands_on_the_page():
    sections = dict(
        re.findall(r"^## nanochat (\w+)\n(.*?)(?=^## |\Z)", PAGES["commands.md"], re.DOTALL | re.MULTILINE)
    )
    verbs = typer.main.get_command(app).commands
    assert list(sections) == list(verbs)
    options = {(verb, option) for verb, command in verbs.items() for p in command.params for option in p.opts}
    assert {(verb, option) for verb, option in options if option not in sections[verb]} == set()
