"""The verbs `recipes` and `show`: presets and their fields."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import output, tables
from flows.cli.options import AsJson, Overrides, RecipeName
from nanochat import recipes
from nanochat.recipes import overrides


def list_recipes(as_json: AsJson = False) -> None:
    """List the presets."""
    rows = [
        {"recipe": name, "depth": recipes.find(name).depth, "about": (make.__doc__ or "").strip()}
        for name, make in recipes.PRESETS.items()
    ]
    if as_json:
        output.show_json(rows)
        return
    output.show(tables.rows_table(rows))


def show(
    recipe: RecipeName,
    override: Overrides = None,
    as_json: AsJson = False,
    derived: Annotated[
        bool, typer.Option("--derived", help="Only the numbers that follow from the fields.")
    ] = False,
) -> None:
    """Show every field of a recipe with its value and meaning.

    The numbers that follow from them (parameters, steps, learning rates, cost) are listed below. With --json
    it is the recipe as a deployment takes it.
    """
    from flows.cli.cost_tables import derived_table
    from nanochat.costs.derived import derived as derive
    from nanochat.costs.forecast import forecast

    found = recipes.find(recipe, override or ())
    if as_json and not derived:
        output.show_json(found.model_dump(mode="json"))
        return
    numbers = derive(found, forecast(found))
    if as_json:
        output.show_json({d.name: d.value for d in numbers})
        return
    if not derived:
        output.show(tables.fields_table(overrides.field_names(found)))
        output.show("")
    output.show(derived_table(numbers))
