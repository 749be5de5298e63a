"""Recipes: one dial (`depth`) from which the presets derive every number.

Presets are functions of depth, so that turning the dial derives everything anew; `find` returns one by name.
How single fields are changed is `nanochat.recipes.overrides`, what they mean is in `nanochat.config`,
what a recipe costs is `nanochat.costs.forecast`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from nanochat.config import Recipe
from nanochat.errors import ConfigError
from nanochat.recipes.classic import d20, d20_spelling, d32
from nanochat.recipes.july2026 import preset_2026
from nanochat.recipes.overrides import apply, explain, nearest, split
from nanochat.recipes.small import laptop, toy
from nanochat.recipes.values import read_value

DEEPEST = 1000  # the dial's end: beyond it a mistyped number, not a model


PRESETS: dict[str, Callable[..., Recipe]] = {
    "toy": toy,
    "laptop": laptop,
    "d20": d20,
    "d20-spelling": d20_spelling,
    "d32": d32,
    **{f"2026-d{depth}": preset_2026(depth) for depth in range(12, 27, 2)},
}


def find(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a preset with `field=value` overrides applied; `depth` re-derives the rest first.

    Raises ConfigError for an unknown preset, an unknown field (naming the nearest) or a bad value.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no recipe {name!r}", hint=nearest(name, PRESETS, "recipes"))
    pairs = [split(text) for text in overrides]
    dial = [value for path, value in pairs if path == "depth"]
    base = _derive(name, read_value(dial[-1], int)) if dial else PRESETS[name]()
    return apply(base, [(path, value) for path, value in pairs if path != "depth"])


def named(recipe: str | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe that is given by its name or as a whole, with overrides applied.

    Raises ConfigError as `find` does, and for `depth` of a whole recipe, whose numbers are derived already.
    """
    if isinstance(recipe, str):
        return find(recipe, overrides)
    pairs = [split(text) for text in overrides]
    if any(path == "depth" for path, _ in pairs):
        raise ConfigError(
            f"depth cannot be overridden in a whole recipe (here {recipe.name!r})",
            hint="give the recipe by its name: depth derives its other numbers anew",
        )
    return apply(recipe, pairs)


def _derive(name: str, depth: object) -> Recipe:
    """Turn a preset's dial; raise ConfigError with the nearest depths that work."""
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= DEEPEST:
        raise ConfigError(
            f"depth is {depth!r}, not a whole number of at least 1 and at most {DEEPEST}",
            hint=f"recipe {name!r} has depth {PRESETS[name]().depth}",
        )
    recipe = _try(name, depth)
    if isinstance(recipe, Recipe):
        return recipe
    near = [next((d for d in side if isinstance(_try(name, d), Recipe)), None) for side in _sides(depth)]
    ways = " or ".join(f"-o depth={d}" for d in near if d is not None)
    raise ConfigError(f"depth is {depth}, which gives no model: {explain(recipe)}", hint=f"use {ways}")


def _try(name: str, depth: int) -> Recipe | ValidationError:
    try:
        return PRESETS[name](depth)
    except ValidationError as error:
        return error


def _sides(depth: int) -> tuple[range, range]:
    return range(depth - 1, 0, -1), range(depth + 1, DEEPEST + 1)
