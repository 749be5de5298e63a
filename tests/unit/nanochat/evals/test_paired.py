from __future__ import annotations

import pytest

from nanochat.errors import DataError
from nanochat.evals.item_results import ItemResult
from nanochat.evals.paired import compared


def _items(*right, first=0, gold="A"):
    return [
        ItemResult(item=first + i, prompt_sha256="0" * 64, gold=gold, predictions=("A",) * len(r), right=r)
        for i, r in enumerate(right)
    ]


YES, NO = (True,), (False,)


def test_items_are_paired_by_their_number_whatever_their_order():
    first = {"mmlu": _items(YES, YES, NO, YES), "gsm8k": _items(YES)}
    second = {"mmlu": _items(NO, YES, YES, NO)[::-1]}
    (found,) = compared(first, second).values()
    assert (found.gained, found.lost, found.items) == ((0, 3), (2,), 4)
    assert found.difference.estimate.value == 0.25
    assert (found.difference.better, found.difference.worse, found.difference.p) == (2, 1, 1.0)


def test_items_that_were_answered_several_times_are_compared_by_how_often():
    found = compared(
        {"gsm8k": _items((True, True, True), (False, False, True))},
        {"gsm8k": _items((True, False, True), (False, True, False))},
    )["gsm8k"]
    assert (found.gained, found.lost) == ((0,), ())
    assert found.difference.estimate.value == pytest.approx(1 / 3 / 2)


@pytest.mark.parametrize(
    "other", [_items(YES), _items(YES, YES, first=1), _items(YES, YES, gold="B"), _items((True, True), YES)]
)
def test_models_that_were_asked_other_items_are_not_compared(other):
    with pytest.raises(DataError, match="mmlu: the two models were not asked the same items"):
        compared({"mmlu": _items(YES, YES)}, {"mmlu": other})
