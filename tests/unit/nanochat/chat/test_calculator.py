from __future__ import annotations

import pytest

from nanochat.chat.calculator import calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+2", "4"),
        ("1,200 * 3", "3600"),
        ("10/4", "2.5"),
        ("20/2", "10"),
        ("0.1+0.2", "0.3"),
        ("-(3 - 5) * .5", "1"),
        ("5.0", "5"),
        ("1/3", "0.3333333333333333"),
        ('"strawberry".count("r")', "3"),
        ("'a,b,c'.count(',')", "2"),
    ],
)
def test_values_are_written_as_in_the_training_data(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "2**3",
        "9//2",
        "1/0",
        "1e9",
        "0x10",
        "1_000",
        "1j",
        "True+1",
        "a+1",
        "(1",
        "05*2",
        "__import__('os').system('true')",
        "().__class__",
        '"a".upper()',
        '"a".count("a").count(1)',
        '"a".count("a", 0)',
        '"a".count(*["a"])',
        'f"{1}".count("1")',
        "[1].count(1)",
        "(" * 150 + "1" + ")" * 40,
        "1" * 201,
        "1+1\0",
    ],
)
def test_everything_else_has_no_value(expression):
    assert calculate(expression) is None


def test_huge_products_stay_bounded():
    assert calculate("*".join(["9" * 9] * 20)) == str(999_999_999**20)
    assert calculate("1/" + "*".join(["9" * 99] * 1)) is not None
