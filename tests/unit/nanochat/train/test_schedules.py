"""Learning rate multipliers and momentum at the steps where they turn."""

from __future__ import annotations

import pytest

from nanochat.train.schedules import (
    midtrain_multiplier,
    pretrain_multiplier,
    rising_momentum,
    sft_multiplier,
)


def test_pretraining_is_constant_then_falls_over_its_last_part() -> None:
    values = [pretrain_multiplier(step, 10, 0.4) for step in range(10)]
    assert values == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_pretraining_without_warmdown_is_constant() -> None:
    assert {pretrain_multiplier(step, 7, 0.0) for step in range(7)} == {1.0}


def test_midtraining_falls_at_its_end_and_never_rises() -> None:
    values = [midtrain_multiplier(step, 100) for step in range(100)]
    assert values[:80] == [1.0] * 80
    assert values[90] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True) and min(values) > 0


def test_fine_tuning_falls_from_the_first_step() -> None:
    assert [sft_multiplier(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_momentum_rises_over_300_steps() -> None:
    assert rising_momentum(0) == 0.85
    assert rising_momentum(150) == pytest.approx(0.90)
    assert rising_momentum(300) == rising_momentum(9999) == 0.95
