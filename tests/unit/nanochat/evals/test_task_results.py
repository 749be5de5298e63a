from __future__ import annotations

from itertools import combinations

import pytest

from nanochat.evals.item_results import ItemResult
from nanochat.evals.task_results import TaskResult, majority, pass_at, summed


def _item(right, predictions=None):
    predictions = predictions or tuple("yes" if one else "no" for one in right)
    return ItemResult(item=0, prompt_sha256="", gold="yes", predictions=predictions, right=tuple(right))


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_part_of_all_ways_to_draw_k_that_hold_a_right_answer(n):
    for hits in range(n + 1):
        right = [i < hits for i in range(n)]
        for k in range(1, n + 1):
            drawn = [any(chosen) for chosen in combinations(right, k)]
            assert pass_at(k, right) == pytest.approx(sum(drawn) / len(drawn), abs=1e-15)


def test_samples_give_pass_at_powers_of_two_and_at_all_of_them():
    result = summed([_item([1, 0, 0, 0, 0, 0]), _item([0] * 6)], baseline=0.0, of=9, votes=True)
    assert result.to_json() == {
        "accuracy": pytest.approx(1 / 12),
        "baseline": 0.0,
        "centered": pytest.approx(1 / 12),
        "problems": 2,
        "of": 9,
        "samples": 6,
        "pass_at": {
            "1": pytest.approx(1 / 12),
            "2": pytest.approx(1 / 6),
            "4": pytest.approx(1 / 3),
            "6": 0.5,
        },
        "any": 0.5,
        "majority": 0.0,
    }
    assert set(result.sampled()) == {"pass_at_1", "pass_at_2", "pass_at_4", "pass_at_6", "any", "majority"}


def test_one_sample_is_accuracy_and_nothing_else():
    result = summed([_item([True]), _item([False])], baseline=0.25, of=2, votes=True)
    assert result.to_json() == {
        "accuracy": 0.5,
        "baseline": 0.25,
        "centered": pytest.approx(1 / 3),
        "problems": 2,
        "of": 2,
    }
    assert result.sampled() == {}


def test_functions_have_no_majority():
    assert summed([_item([True, False])], baseline=0.0, of=1).majority is None


@pytest.mark.parametrize(
    ("predictions", "right"),
    [
        (("5", "3", "3"), False),
        (("3", "5", "5"), True),
        (("5", "3"), True),  # a tie goes to what came first
        (("3", "5"), False),
        (("", "", "5"), True),  # no answer is no vote
        (("", ""), False),
    ],
)
def test_the_most_frequent_answer_decides(predictions, right):
    assert majority(_item([answer == "5" for answer in predictions], predictions)) is right


def test_centered_is_zero_for_guessing_and_one_for_all_right():
    of = {"problems": 1, "of": 1}
    assert TaskResult(accuracy=0.25, baseline=0.25, **of).centered == 0
    assert TaskResult(accuracy=1.0, baseline=0.25, **of).centered == 1
