from __future__ import annotations

import pytest

from flows.display.quantities import bytes_text, duration, number_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.2, "4.2 s"),
        (63, "1 min 03 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1063, "1.1 kB"),
        (123e6, "123.0 MB"),
        (5e9, "5.0 GB"),
        (6.3e15, "6300.0 TB"),
    ],
)
def test_a_size_is_told_in_decimal_units(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(("value", "text"), [(1234567, "1,234,567"), (2.5, "2.500"), (None, "unknown")])
def test_whole_numbers_stand_in_full_and_others_in_the_form_asked_for(value, text):
    assert number_text(value, ",.3f") == text
