"""Against published tables, and against every case where there are few."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nanochat.evals.intervals import (
    Estimate,
    centered_mean,
    difference,
    share,
    swap_probability,
    weighted_sum,
)


@pytest.mark.parametrize(
    ("right", "items", "low", "high"),
    [  # Newcombe 1998, two-sided confidence intervals for the single proportion, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_of_a_share_is_wilsons(right, items, low, high):
    found = share(right / items, items)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = share(1 - right / items, items)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_interval_of_a_share_holds_its_level_in_truth():
    truth, items = 0.3, 40
    held = 0.0
    for right in range(items + 1):
        found = share(right / items, items)
        if found.low <= truth <= found.high:
            held += math.comb(items, right) * truth**right * (1 - truth) ** (items - right)
    assert 0.93 <= held <= 0.97


def test_no_items_say_nothing_and_the_ends_are_whole_numbers():
    assert share(0.0, 0) == Estimate(0.0, 0.0, 1.0)
    assert share(0.0, 7).low == 0.0 and share(1.0, 7).high == 1.0
    assert share(0.0, 7).high == pytest.approx(1 - share(1.0, 7).low)


def test_sum_of_two_shares_is_the_interval_of_their_difference_mirrored():
    # Newcombe 1998, interval estimation for the difference between independent proportions, table II,
    # method 10: 56 of 70 less 48 of 80 is 0.2, from 0.0524 to 0.3339. Less p is plus (1 - p), less one.
    found = weighted_sum([(1.0, share(56 / 70, 70)), (1.0, share(32 / 80, 80))])
    assert (found.value - 1, found.low - 1, found.high - 1) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_mean_above_chance_is_the_mean_of_the_centered_shares_and_its_interval_narrower_than_theirs():
    easy, maths = share(0.4, 500), share(0.0, 500)
    found = centered_mean([(easy, 0.25), (maths, 0.0)])
    assert found.value == pytest.approx((0.2 + 0.0) / 2)
    assert found.low == pytest.approx(found.value - (0.4 - easy.low) / 0.75 / 2)
    assert found.high == pytest.approx(found.value + math.hypot((easy.high - 0.4) / 0.75, maths.high) / 2)


def _pairs(both, only_first, only_second, neither):
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return first, second


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, improved confidence intervals for paired data, table II, method 10, signs turned
        ((36, 12, 2, 0), -0.3404, -0.0569),
        ((0, 0, 0, 29), -0.1170, 0.1170),
    ],
)
def test_interval_of_a_paired_difference_is_newcombes(counts, low, high):
    found = difference(*_pairs(*counts)).estimate
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_paired_test_of_right_and_wrong_is_mcnemars_exact_one():
    found = difference(*_pairs(30, 12, 2, 6))
    assert found.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert (found.better, found.worse, found.estimate.value) == (2, 12, -0.2)
    assert difference(*_pairs(3, 0, 0, 5)).p == 1.0


@pytest.mark.parametrize(
    "gains", [(3, -1, 2, 2, 0, -5, 1), (4,), (1, 1, 1), (0, 0), (2, -2, 1, 0, 3, -1, -1)]
)
def test_paired_test_of_parts_counts_every_way_to_swap_the_models(gains):
    ways = [
        sum(sign * gain for sign, gain in zip(signs, gains, strict=True))
        for signs in itertools.product((1, -1), repeat=len(gains))
    ]
    far = sum(abs(way) >= abs(sum(gains)) for way in ways)
    assert swap_probability(gains) == pytest.approx(far / len(ways))


def test_paired_test_is_quick_and_exact_for_a_whole_benchmark():
    better, worse = 1_040, 960  # of the 14,042 items of MMLU
    tail = sum(math.comb(2_000, k) for k in range(worse + 1))
    assert swap_probability([1] * better + [-1] * worse) == pytest.approx(2 * tail / 2**2_000, rel=1e-9)


def test_items_that_are_asked_several_times_count_in_parts():
    found = difference([4, 0, 2], [2, 1, 2], of=4)
    assert found.estimate.value == pytest.approx((-2 + 1) / 4 / 3)
    assert (found.better, found.worse) == (1, 1)
    assert found.p == 1.0
    assert found.estimate.low < found.estimate.value < found.estimate.high


def test_the_order_of_the_models_only_turns_the_sign():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 2, (2, 63)).tolist()
    there, back = difference(first, second), difference(second, first)
    assert there.estimate.value == -back.estimate.value and there.p == back.p
    assert (there.estimate.low, there.estimate.high) == pytest.approx(
        (-back.estimate.high, -back.estimate.low)
    )
