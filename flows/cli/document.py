"""`python -m flows.cli.document` writes `docs/recipes.md` and `docs/commands.md` from the code.

The meaning of a field is its docstring, the text of a verb or option is that of `--help`: nothing is written
here alone. A test compares the files with the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main

from flows.cli.tables import value_text
from nanochat import recipes
from nanochat.config import MixtureEntry, Recipe
from nanochat.recipes.overrides import field_names

DOCS = Path(__file__).parents[2] / "docs"
_WRITTEN = "<!-- Written by `just docs` from the code. Change the code, not this file. -->"
_ALL_OF_RECIPE = "The recipe itself"  # the heading of fields outside any section
_FAMILY = "2026-d"


def recipes_page() -> str:
    """Return every preset and every field, with its meaning and its value in each preset."""
    presets = {name: recipes.find(name) for name in recipes.PRESETS}
    blocks = [
        "# Recipes",
        _WRITTEN,
        "A recipe is everything that decides what a run makes. Every field can be changed by its dotted name"
        " with `-o FIELD=VALUE`, and `-o depth=N` derives all the others again; `nanochat show RECIPE` prints"
        " the fields of one recipe. A value without a name is that of all presets not named beside it.",
        "## Presets",
        _table(("recipe", "depth", "what it is"), _preset_rows(presets)),
    ]
    for part, rows in _fields_by_part(presets).items():
        blocks += [f"## {part}", _about(part), _table(("field", "meaning", "value"), rows)]
    blocks += ["## Rows of a mixture", _MIXTURE, _table(("field", "meaning", "default"), _mixture_rows())]
    return _page(blocks)


def commands_page(app: typer.Typer) -> str:
    """Return every verb with its arguments and options, as `--help` has them."""
    group = typer.main.get_command(app)
    verbs: dict[str, Any] = getattr(group, "commands")  # noqa: B009 - typer's own group, not click's
    blocks = ["# Commands", _WRITTEN, _COMMANDS]
    rows = [(f"[`{name}`](#nanochat-{name})", verb.help.splitlines()[0]) for name, verb in verbs.items()]
    blocks.append(_table(("verb", "what it does"), rows))
    for name, verb in verbs.items():
        blocks += [f"## nanochat {name}", *_verb(name, verb)]
    return _page(blocks)


_COMMANDS = (
    "REF is a stage (its newest record), a node such as `tokenize/shard_00001`, or `stage/` and the beginning"
    " of a key; verbs that take a model also take a published folder. Data goes to stdout, everything else to"
    " stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage."
    " `nanochat --version` shows version and commit."
)
_MIXTURE = (
    "`mixture` and `validation` of a stage are lists of these:"
    " `-o 'STAGE.mixture=[{task: spelling}, {task: smoltalk, rows: 1000}]'`."
)


def _preset_rows(presets: dict[str, Recipe]) -> Iterator[tuple[str, str, str]]:
    for name, recipe in presets.items():
        yield f"`{name}`", str(recipe.depth), (recipes.PRESETS[name].__doc__ or "").strip()


def _fields_by_part(presets: dict[str, Recipe]) -> dict[str, list[tuple[str, str, str]]]:
    """Return the rows of each part of a recipe; a field that only some presets have is included."""
    meanings: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    for preset, recipe in presets.items():
        for name, value, meaning in field_names(recipe):
            meanings[name] = meaning
            values.setdefault(name, {})[preset] = _value(value)
    parts: dict[str, list[tuple[str, str, str]]] = {}
    for part in Recipe.model_fields:  # their order, whichever preset has which
        for name, of in values.items():
            if name.partition(".")[0] == part:
                heading = part if "." in name else _ALL_OF_RECIPE
                parts.setdefault(heading, []).append((f"`{name}`", meanings[name], _by_preset(of)))
    return parts


def _about(part: str) -> str:
    model = Recipe if part == _ALL_OF_RECIPE else type(getattr(recipes.find("toy"), part))
    return (model.__doc__ or "").strip()


def _by_preset(values: dict[str, str]) -> str:
    """Return the value that more than half of the presets have, then the others with their presets' names."""
    if all(value == f"`{preset}`" for preset, value in values.items()):
        return "the name of the preset"
    presets: dict[str, list[str]] = {}
    for preset, value in values.items():
        presets.setdefault(value, []).append(preset)
    in_all = len(values) == len(recipes.PRESETS)
    usual = next((v for v, names in presets.items() if in_all and 2 * len(names) > len(values)), None)
    others = [f"{value} in {_names(names)}" for value, names in presets.items() if value != usual]
    return "<br>".join(([usual] if usual else []) + others)


def _names(presets: list[str]) -> str:
    """Join names of presets; a complete family is named once."""
    family = [name for name in recipes.PRESETS if name.startswith(_FAMILY)]
    if set(family) <= set(presets):
        presets = [*(name for name in presets if name not in family), f"{_FAMILY}*"]
    return ", ".join(presets)


def _mixture_rows() -> Iterator[tuple[str, str, str]]:
    for name, field in MixtureEntry.model_fields.items():
        default = "" if field.is_required() else _value(field.default)
        yield f"`{name}`", " ".join((field.description or "").split()), default


def _value(value: Any) -> str:
    return f"`{value:.5g}`" if isinstance(value, float) else f"`{value_text(value)}`"


def _verb(name: str, verb: Any) -> Iterator[str]:
    context = verb.make_context(name, [], resilient_parsing=True)
    yield " ".join(verb.help.split())
    yield f"```text\nnanochat {name} {' '.join(verb.collect_usage_pieces(context))}\n```"
    records = [record for param in verb.params if (record := param.get_help_record(context))]
    if records:
        yield _table(("argument or option", "meaning"), [(f"`{name}`", about) for name, about in records])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def pages() -> dict[str, str]:
    """Return the text of each file below `docs/` that is written from the code."""
    from flows.cli.app import app

    return {"recipes.md": recipes_page(), "commands.md": commands_page(app)}


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")
