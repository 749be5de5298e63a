"""Learning rate multipliers and momentum at the steps where they turn."""

from __future__ import annotations

import pytest

from nanochat.config import ModelConfig, PretrainConfig
from nanochat.optim.schedules import (
    midtrain_multiplier,
    pretrain_multiplier,
    pretrain_schedule,
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


def test_the_2026_schedule_warms_up_holds_and_falls_with_its_momentum_and_decay():
    model = ModelConfig(architecture="2026", n_embd=128, n_head=1, n_kv_head=1)
    config = PretrainConfig(model=model, steps=1000, warmup_steps=40, warmdown_ratio=0.65, final_lr_frac=0.05)
    schedule = pretrain_schedule(config)
    lr = [schedule.lr_multiplier(step) for step in (0, 39, 40, 350, 675, 1000)]
    assert lr == pytest.approx([1 / 40, 1, 1, 1, 0.525, 0.05])
    momentum = [schedule.momentum(step) for step in (0, 200, 399, 400, 675, 1000)]
    # At step 400 the warmdown, which began at 350, is 50 / 650 through.
    assert momentum == pytest.approx([0.85, 0.91, 0.9697, 0.97 - 0.07 / 13, 0.935, 0.90])
    assert [schedule.weight_decay(step) for step in (0, 500, 1000)] == pytest.approx([1, 0.5, 0])


def test_the_classic_schedule_is_what_it_was():
    schedule = pretrain_schedule(PretrainConfig(steps=1000))
    assert [schedule.lr_multiplier(step) for step in (0, 800, 900, 999)] == [1.0, 1.0, 0.5, 0.005]
    assert [schedule.momentum(step) for step in (0, 300, 999)] == [0.85, 0.95, 0.95]
    assert schedule.weight_decay(500) == 1.0
