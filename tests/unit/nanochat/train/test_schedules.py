"""Learning rate multipliers and momentum at the steps where they turn."""

from __future__ import annotations

import pytest

from nanochat.train.schedules import (
    midtrain_multiplier,
    momentum_2026,
    pretrain_multiplier,
    rising_momentum,
    sft_multiplier,
    weight_decay_multiplier,
)


def test_pretraining_is_constant_then_falls_over_its_last_part() -> None:
    values = [pretrain_multiplier(step, 10, 0.4) for step in range(10)]
    assert values == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_pretraining_without_warmdown_is_constant() -> None:
    assert {pretrain_multiplier(step, 7, 0.0) for step in range(7)} == {1.0}


def test_pretraining_warms_up_and_ends_above_zero() -> None:
    values = [pretrain_multiplier(step, 10, 0.4, warmup_steps=2, final=0.2) for step in range(10)]
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4])


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


def test_momentum_of_2026_rises_over_400_steps_and_falls_in_the_warmdown() -> None:
    values = [momentum_2026(step, 1000, 0.3) for step in range(1000)]
    assert values[0] == 0.85
    assert values[200] == pytest.approx(0.91)
    assert set(values[400:701]) == {0.97}
    assert values[850] == pytest.approx(0.935)
    assert values[999] == pytest.approx(0.90, abs=5e-4)
    assert momentum_2026(500, 1000, 0.0) == 0.97


def test_momentum_of_2026_still_rises_where_a_warmdown_begins_early() -> None:
    assert momentum_2026(300, 600, 0.9) == pytest.approx(0.85 + 0.75 * 0.12)


def test_weight_decay_falls_like_a_cosine() -> None:
    values = [weight_decay_multiplier(step, 8) for step in range(9)]
    assert values[0] == 1.0 and values[4] == pytest.approx(0.5) and values[8] == pytest.approx(0.0)
    assert values == sorted(values, reverse=True)
