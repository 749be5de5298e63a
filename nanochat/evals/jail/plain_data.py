"""Values between the two processes of a judgement: built-in types alone, rebuilt from scratch.

A value is sent as JSON: None, booleans, short integers, floats and strings as they are, everything else as a
list whose first element names the type. Instances of subclasses are sent as the type they are built on, so
that nothing that the program defined (an `__eq__`, a `__bool__`) comes along; iterators are drawn to their
end; what has no plain form becomes an `Opaque`, equal to itself alone, whose elements come along where it has
any: a test may ask for `tuple(result)`. This module judges nothing.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_MAX_DRAWN = 100_000  # elements of an iterator; one that goes on for ever has no plain form
_MAX_INT = 2**63  # larger ones are written in hexadecimal, which has no limit on digits


class Opaque:
    """A result that has no plain form: equal to itself alone."""

    def __init__(self, name: str, truth: bool) -> None:
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name}>"


class OpaqueIterable(Opaque):
    """One that tests can go through, as often as they like."""

    def __init__(self, name: str, truth: bool, items: list[Any]) -> None:
        super().__init__(name, truth)
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def encode(value: Any, *, strict: bool = False) -> Any:
    """Return the JSON form of a value; `strict` raises TypeError for what has no plain form."""
    if value is None or value is True or value is False:
        return value
    for kind, name in _SEQUENCES:
        if isinstance(value, kind):
            return [name, *(encode(item, strict=strict) for item in value)]
    if isinstance(value, dict):
        pairs = ([encode(key, strict=strict), encode(item, strict=strict)] for key, item in value.items())
        return ["dict", *pairs]
    if isinstance(value, int):
        return int(value) if -_MAX_INT < value < _MAX_INT else ["int", hex(value)]
    if isinstance(value, str | float):
        return str.__str__(value) if isinstance(value, str) else float.__float__(value)
    return _rarer(value, strict)


_SEQUENCES = ((list, "list"), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset"))


def _rarer(value: Any, strict: bool) -> Any:
    if isinstance(value, bytes | bytearray):
        return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", *map(encode, (value.start, value.stop, value.step))]
    if _is(value, "decimal", "Decimal"):
        return ["Decimal", str(value)]
    if _is(value, "fractions", "Fraction"):
        return ["Fraction", encode(value.numerator), encode(value.denominator)]
    if isinstance(value, Mapping):
        return encode(dict(value), strict=strict)
    if _is(value, "collections", "UserList") or _is(value, "collections", "UserString"):
        return encode(value.data, strict=strict)
    if hasattr(value, "__next__"):
        drawn = [encode(item, strict=strict) for item in islice(value, _MAX_DRAWN + 1)]
        if len(drawn) <= _MAX_DRAWN:
            return ["iterator", *drawn]
    if strict:
        raise TypeError(f"{value!r:.100} cannot be passed to the program: only plain data can")
    return ["opaque", type(value).__name__[:100], bool(value), _elements(value)]


def _elements(value: Any) -> list[Any] | None:
    """Return the forms of what a test would find by going through a value, where it can."""
    try:
        drawn = [encode(item) for item in islice(iter(value), _MAX_DRAWN + 1)]
    except RecursionError:  # elements in themselves: their sender says so of the whole, and only once
        raise
    except Exception:  # not iterable, or by the program's own code, which no test has asked for yet
        return None
    return drawn if len(drawn) <= _MAX_DRAWN else None


def _is(value: Any, module: str, name: str) -> bool:
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def decode(form: Any) -> Any:
    """Return the value of a JSON form; raises for what `encode` does not write."""
    if not isinstance(form, list):
        if isinstance(form, dict):
            raise ValueError("an object is not the form of a value")
        return form
    name, *rest = form
    return _DECODERS[name](*rest)


def _mapping(*pairs: Any) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in pairs}


def _iterator(*items: Any) -> Iterator[Any]:
    return iter([decode(item) for item in items])


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _fraction(numerator: Any, denominator: Any) -> Any:
    from fractions import Fraction

    return Fraction(decode(numerator), decode(denominator))


def _opaque(name: Any, truth: Any, items: list[Any] | None) -> Opaque:
    if items is None:
        return Opaque(str(name), truth is True)
    return OpaqueIterable(str(name), truth is True, [decode(item) for item in items])


_DECODERS: dict[str, Any] = {
    "list": lambda *items: [decode(item) for item in items],
    "tuple": lambda *items: tuple(decode(item) for item in items),
    "set": lambda *items: {decode(item) for item in items},
    "frozenset": lambda *items: frozenset(decode(item) for item in items),
    "dict": _mapping,
    "int": lambda digits: int(digits, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": complex,
    "range": lambda *ends: range(*map(decode, ends)),
    "Decimal": _decimal,
    "Fraction": _fraction,
    "iterator": _iterator,
    "opaque": _opaque,
}


def encode_exception(error: BaseException) -> list[Any]:
    """Return the nearest built-in class of an exception, its arguments and its text."""
    kind = next(c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
    return [kind, [encode(argument) for argument in error.args], f"{type(error).__name__}: {error}"[:500]]


def decode_exception(kind: str, arguments: list[Any], text: str) -> BaseException:
    """Return an exception of a built-in class."""
    found = getattr(builtins, kind, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise ValueError(f"{kind!r} is not an exception")
    try:
        return found(*map(decode, arguments))
    except Exception:  # a class with arguments of its own, such as UnicodeDecodeError
        return Exception(str(text))
