"""What the text of a value in `field=value` means: the type of the field decides, never the look of the text.

- Text is taken as it is typed: `my #1.jsonl`, `a: b`, `yes` and `'5'` with its quotes. Where a field can be
  empty, `null` or nothing leaves it so.
- Several texts are written as `[first, second]`; what does not begin with `[` and end with `]` is one. An
  element with a comma, or spaces at its ends, is put in quotes.
- Numbers are decimal; true and false have the other names that pydantic knows (`yes`, `on`, `1`).
- What has fields, such as a mixture, is YAML: `[{task: gsm8k, rows: 100}]`. Its values are as above.

Whether a value is allowed is decided by `nanochat.config`.
"""

from __future__ import annotations

import json
import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from nanochat.errors import ConfigError

_NOTHING = ("", "null")
_ELEMENT = re.compile(
    r"""\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^']|'')*)'|(?P<plain>[^,]*?))\s*(?:,|$)"""
)


def read_value(text: str, annotation: Any) -> Any:
    """Return a value for a field of a type; raise ConfigError where the text has no meaning."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if NoneType in kinds and text.strip() in _NOTHING:
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    if kind is str or get_origin(kind) is Literal:
        return text
    if kind is bool:
        return text.strip()
    if kind in (int, float):
        return _number(text)
    return _texts(text) if kind == tuple[str, ...] else _fields(text)


def _number(text: str) -> int | float | str:
    """Return a number, or the text for a message about it."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _texts(text: str) -> tuple[str, ...] | None:
    listed = text.strip()
    if not listed:
        return None
    if not (listed.startswith("[") and listed.endswith("]")):
        return (text,)
    listed, found, place = listed[1:-1].strip(), list[str](), 0
    while place < len(listed):
        element = _ELEMENT.match(listed, place)
        assert element is not None  # its plain form takes whatever there is up to a comma
        found.append(_element(element, text))
        place = element.end()
    return tuple(found)


def _element(found: re.Match[str], text: str) -> str:
    if found["double"] is not None:
        try:
            return str(json.loads(f'"{found["double"]}"'))
        except ValueError:
            raise _unreadable(
                text, f'"{found["double"]}" has an escape that JSON does not know', hint="use single quotes"
            ) from None
    if found["single"] is not None:
        return found["single"].replace("''", "'")
    if not found["plain"]:
        raise _unreadable(text, "an element is empty", hint="write '' for an empty text")
    return found["plain"]


_NULL = "tag:yaml.org,2002:null"


class _Loader(yaml.SafeLoader):
    """YAML without what silently changes a value: `010` as 8, a key that is there twice, references, tags."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in known if tag == _NULL]
            for first, known in self.yaml_implicit_resolvers.items()
        }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("'*' refers to another part, which is not supported")
        if tag := getattr(self.peek_event(), "tag", None):  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"{tag!r} is a tag, which is not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice!r} is there twice")
        return super().construct_mapping(node, deep)


def _fields(text: str) -> Any:
    try:
        value = yaml.load(text, _Loader)
        ends = [token.end_mark.index for token in yaml.scan(text) if not isinstance(token, _NO_PLACE)]
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(text, " ".join(str(error).split()), hint=_QUOTES) from None
    except RecursionError:
        raise _unreadable(text, "brackets are nested too deeply", hint=_QUOTES) from None
    if comment := text[max(ends, default=0) :].strip():
        raise _unreadable(text, f"{comment[:40]!r} would be a comment", hint=_QUOTES)
    return value


_QUOTES = "put text with special characters in quotes, as in [{task: 'own/my #1'}]"
_NO_PLACE = (yaml.StreamEndToken, yaml.BlockEndToken)  # tokens that are not written


def _unreadable(text: str, reason: str, *, hint: str) -> ConfigError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ConfigError(f"the value {shown!r} cannot be read: {reason}", hint=hint)
