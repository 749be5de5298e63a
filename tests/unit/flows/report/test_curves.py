from __future__ import annotations

import math

from flows.report.curves import MOST_POINTS, mean_of_pieces, thinned, training_curves


def test_a_curve_is_over_the_tokens_read_up_to_each_step():
    speeds = [{"step": s, "tokens": 10 * s} for s in (1, 2, 3)]
    curves = training_curves([{"step": s, "train/loss": 1.0 / s} for s in (1, 3)], speeds, {})
    assert curves.unit == "tokens"
    assert curves.of("train/loss") == ((10.0, 1.0), (60.0, 1 / 3))


def test_without_the_tokens_of_each_step_they_are_spread_evenly_or_it_is_over_steps():
    lines = [{"step": s, "train/loss": 1.0} for s in (1, 4)]
    even = training_curves(lines, [], {"steps": 4, "tokens": 100})
    assert [x for x, _ in even.of("train/loss")] == [25.0, 100.0]
    gap = training_curves(lines, [{"step": 2, "tokens": 5}], {})
    assert gap.unit == "steps" and [x for x, _ in gap.of("train/loss")] == [1.0, 4.0]


def test_what_is_not_finite_is_counted_and_left_out():
    lines = [{"step": s, "train/loss": value} for s, value in enumerate((1.0, math.nan, math.inf, 2.0), 1)]
    curves = training_curves(lines, [], {})
    assert curves.left_out == 2 and len(curves.of("train/loss")) == 2


def test_a_step_that_no_training_reaches_has_no_place_on_the_curve():
    lines = [{"step": step, "train/loss": 1.0} for step in (1, 1e299)]
    curves = training_curves(lines, [], {"steps": 2, "tokens": 1e12})
    assert curves.of("train/loss") == ((5e11, 1.0),)


def test_a_step_that_was_measured_twice_is_one_point():
    curves = training_curves([{"step": 1, "val/bpb": 2.0}, {"step": 1, "val/bpb": 1.0}], [], {})
    assert curves.of("val/bpb") == ((1.0, 1.0),)


def test_thinning_keeps_the_ends_and_the_peaks():
    points = [(float(i), math.sin(i / 500)) for i in range(50_003)]
    points[31_007] = (31_007.0, 9.0)
    points[17] = (17.0, -9.0)
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert {points[0], points[-1], points[17], points[31_007]} <= set(kept)
    assert list(kept) == sorted(kept)
    assert thinned(points[:63]) == tuple(points[:63])


def test_means_are_of_the_last_points_and_begin_and_end_inside_the_curve():
    points = [(float(i), float(i % 2)) for i in range(1, 1001)]
    width, means = mean_of_pieces(points)
    assert width == 16 and all(value == 0.5 for _, value in means)
    assert means[0][0] == 16.0 and means[-1][0] <= 1000.0
    assert mean_of_pieces(points[:50]) == (1, tuple(points[:50]))
