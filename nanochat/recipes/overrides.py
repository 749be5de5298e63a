"""Overrides: single fields of a recipe changed by dotted name, and bad values explained in our own words.

What the text of a value means is decided by `nanochat.recipes.values`, which recipes there are by
`nanochat.recipes.presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nanochat.config import Recipe
from nanochat.errors import ConfigError
from nanochat.recipes.values import read_value


def field_names(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted name, value, help text) of every field, depth first."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, " ".join((info.description or "").split())


def split(text: str) -> tuple[str, str]:
    """Return the dotted name and the value's text of `field=value`; raise ConfigError if it has no `=`."""
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"override {text!r} has no '='",
            hint="write it as section.field=value, such as evaluate.core=false",
        )
    return path.strip(), value


def apply(recipe: Recipe, pairs: Sequence[tuple[str, str]]) -> Recipe:
    """Return the recipe with fields changed; raise ConfigError for an unknown field or a bad value."""
    data = recipe.model_dump()
    known = {name for name, _, _ in field_names(recipe)}
    for path, text in pairs:
        if path not in known:
            raise ConfigError(
                f"recipe {recipe.name!r} has no field {path!r}", hint=nearest(path, known, "fields")
            )
        *sections, leaf = path.split(".")
        target: Any = data
        owner: BaseModel = recipe
        for section in sections:
            owner = getattr(owner, section)
            target = target[section]
        target[leaf] = read_value(text, type(owner).model_fields[leaf].annotation)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            explain(error), hint=f"`nanochat show {recipe.name}` lists every field with its value"
        ) from None


def explain(error: ValidationError) -> str:
    """Return in our own words which values are wrong, and how."""
    return "; ".join(_explain(problem) for problem in error.errors())


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """Return a hint with the names most like this one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known {what}: {', '.join(names)}"


def _explain(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":  # one of our own checks, over several fields
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    say = _SAYINGS.get(problem["type"], _NO_VALUE)
    value = repr(problem["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{where} is {shown}, {say(problem.get('ctx', {}))}"


def _always(text: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda _: text


_NO_VALUE = _always("not a value that this field takes")
_NO_INTEGER = _always("not a whole number (an integer)")
_NO_NUMBER = _always("not a finite number")
_NO_LIST = _always("not a list; write it as [first, second]")
_NO_FIELDS = _always("not a set of fields; write it as {name: value}")

# What the types of pydantic's errors mean, given their context.
_SAYINGS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda limit: f"but must be greater than {limit['gt']}",
    "greater_than_equal": lambda limit: f"but must be at least {limit['ge']}",
    "less_than": lambda limit: f"but must be less than {limit['lt']}",
    "less_than_equal": lambda limit: f"but must be at most {limit['le']}",
    "literal_error": lambda known: f"but must be {known['expected']}",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), _NO_INTEGER),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), _NO_NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _always("neither true nor false")),
    **dict.fromkeys(("string_type", "string_unicode"), _always("not text")),
    **dict.fromkeys(("tuple_type", "list_type"), _NO_LIST),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _NO_FIELDS),
    "missing": _always("which lacks this field"),
    "extra_forbidden": _always("but there is no field of that name"),
}
