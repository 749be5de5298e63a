from __future__ import annotations

import math

import pytest

from flows.report.axes import amounts, axis, shares, short


def _labels(made):
    return [tick.label for tick in made.ticks]


def test_ticks_are_round_and_hold_all_values():
    made = axis([0.83, 7.1])
    assert (made.low, made.high, made.log) == (0.0, 8.0, False)
    assert _labels(made) == ["0", "2", "4", "6", "8"]
    assert made.at(2.0) == 25.0


def test_values_over_powers_of_ten_are_on_a_logarithmic_axis():
    made = axis([0.00028, 0.096])
    assert made.log
    assert _labels(made) == ["0.0001", "0.001", "0.01", "0.1"]
    assert made.at(0.001) == pytest.approx(100 / 3, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5, 1e-9, 1e18])
def test_an_axis_of_one_value_has_that_value_inside(value):
    made = axis([value, value])
    assert made.low < value < made.high
    assert 0 < made.at(value) < 100
    assert len(set(_labels(made))) == len(made.ticks) >= 2


def test_close_values_have_labels_that_tell_them_apart():
    labels = _labels(axis([0.3787, 0.3789]))
    assert len(set(labels)) == len(labels) >= 3


def test_an_axis_of_amounts_ends_at_the_last():
    made = amounts(563_200)
    assert made.at(563_200) == 100
    assert _labels(made) == ["0", "200 k", "400 k"]
    assert _labels(amounts(11.2e9)) == ["0", "5 B", "10 B"]


def test_shares_go_to_one_and_hold_what_is_below_zero():
    assert _labels(shares(0.0, 0.7, in_percent=True)) == ["0 %", "50 %", "100 %"]
    below = shares(-0.04, 0.9, in_percent=False)
    assert below.low <= -0.04 and below.high >= 0.9
    assert "0" in _labels(below)
    assert shares(-0.5, -0.2, in_percent=False).high == 0.0


def test_short_numbers_keep_three_digits():
    assert [short(v) for v in (0, 7, 1_097_728, 4e19, 999)] == ["0", "7", "1.1 M", "4.00e+19", "999"]


@pytest.mark.parametrize("value", [-1.938719257825065, 7.772884086624508, 10.520196474891332, 1e16])
def test_values_that_differ_by_rounding_alone_are_as_one(value):
    made = axis([value, math.nextafter(value, math.inf)])
    assert made.low < value < made.high
    assert len(set(_labels(made))) == len(made.ticks) >= 2


@pytest.mark.parametrize(
    "values", [[1e-323], [0.0, 1e-320], [1e-310, 1e-306], [-1e-320, 1e-300], [1e-300, 1.0]]
)
def test_what_is_too_small_for_ticks_is_drawn_as_zero(values):
    for made in (axis(values), amounts(values[-1])):
        assert made.low < made.high and len(made.ticks) >= 2
        assert all(0 <= made.at(value) <= 100 for value in values)
