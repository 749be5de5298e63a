from __future__ import annotations

import json
from array import array
from collections import ChainMap, Counter, OrderedDict, UserList, UserString, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest

from nanochat.evals.jail.plain_data import Opaque, decode, decode_exception, encode, encode_exception

_Point = namedtuple("_Point", "x y")
_Level = IntEnum("_Level", "low high")


def _there(value, **options):
    return decode(json.loads(json.dumps(encode(value, **options))))


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**63,
            -(10**400),
            0.1,
            -0.0,
            float("inf"),
            "",
            "é\n",
            "\ud800",
            b"\x00\xff",
        ),
        *(
            [],
            [[1, [2]], (), (1,), "list"],
            {},
            {1: [2], (1, 2): {3: "dict"}},
            {"opaque": 1},
            set(),
            {1, "a", (2,)},
        ),
        *(frozenset({1}), 1 + 2j, bytearray(b"x"), range(1, 10, 3), Decimal("1.10"), Fraction(1, 3)),
    ],
    ids=lambda value: type(value).__name__,  # a set's own text differs from process to process
)
def test_plain_data_arrives_as_it_was(value):
    found = _there(value)
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value) or isinstance(value, set)  # whose order is free


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (_Point(1, 2), (1, 2)),
        (_Level.high, 2),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (ChainMap({1: 2}, {1: 3, 4: 5}), {1: 2, 4: 5}),
        (UserList([1, (2,)]), [1, (2,)]),
        (UserString("a"), "a"),
        (type("Text", (str,), {"__eq__": lambda *_: True, "__hash__": str.__hash__})("a"), "a"),
        (type("Number", (float,), {"__eq__": lambda *_: True})(1.5), 1.5),
    ],
)
def test_a_subclass_arrives_as_the_type_below_it(value, plain):
    assert (_there(value), type(_there(value))) == (plain, type(plain))


def test_an_iterator_arrives_with_its_elements_and_equals_no_list():
    found = _there(x * x for x in range(3))
    assert found != [0, 1, 4]
    assert list(found) == [0, 1, 4]


def test_what_has_no_plain_form_equals_nothing_and_keeps_its_truth():
    class Equal:
        def __eq__(self, other):
            return True

        def __bool__(self):
            return False

    found = _there([Equal()])[0]
    assert isinstance(found, Opaque)
    assert found != Equal
    assert not found
    assert _there(object())


class _Items:
    def __init__(self, items):
        self._items = items

    def __getitem__(self, i):
        return self._items[i]


@pytest.mark.parametrize(
    "value",
    [deque([1, (2,)]), array("q", [1, 2]), {1: 2, (3,): 4}.items(), {1: 2}.values(), _Items([1, 2])],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_gone_through_equals_nothing_but_has_its_elements(value):
    found = _there(value)
    assert isinstance(found, Opaque)
    assert tuple(found) == tuple(found) == tuple(value)
    assert found != tuple(value)


def test_elements_that_cannot_be_had_do_no_harm():
    def fails():
        raise ValueError

    def never_ends():
        while True:
            yield 1

    for method in (fails, never_ends):
        value = type("Own", (), {"__iter__": lambda _, method=method: method()})()
        with pytest.raises(TypeError, match="not iterable"):
            iter(_there(value))


def test_arguments_must_be_plain():
    with pytest.raises(TypeError, match="only plain data"):
        encode([1, {"key": print}], strict=True)


@pytest.mark.parametrize(
    "form", [{"a": 1}, [], ["int", "x"], ["os.system", "true"], ["list", {"a": 1}], [["list"]]]
)
def test_other_forms_are_refused(form):
    with pytest.raises((ValueError, LookupError, TypeError)):
        decode(form)


class _OwnError(KeyError):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "arguments"),
    [
        (ValueError("a", 1), ValueError, ("a", 1)),
        (_OwnError("key"), KeyError, ("key",)),
        (SystemExit(3), SystemExit, (3,)),
        (OSError(2, "gone"), FileNotFoundError, (2, "gone")),
    ],
)
def test_an_exception_arrives_as_the_builtin_class_below_it(error, kind, arguments):
    found = decode_exception(*json.loads(json.dumps(encode_exception(error))))
    assert (type(found), found.args) == (kind, arguments)


def test_a_name_that_is_no_exception_is_refused():
    with pytest.raises(ValueError, match="not an exception"):
        decode_exception("print", [], "")
