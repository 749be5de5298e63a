"""How work is cut, whatever the items are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nanochat.evals.portions import EvaluationPart, longest_first

works = st.dictionaries(st.integers(0, 500), st.floats(0, 300_000), max_size=80)


def _part(name, work, **more):
    return EvaluationPart(name=name, work=work, make=lambda items: iter(()), **more)


@given(works, st.integers(1, 9))
def test_portions_hold_every_item_once_and_are_of_about_one_size(work, least):
    portions = _part("a", work, least_items=least).portions()
    items = [item for portion in portions for item in portion.items]
    assert sorted(items) == sorted(work)
    assert [work[i] for i in items] == sorted(work.values(), reverse=True)
    most = max(sum(work.values()) / 16, 16_384)
    for portion in portions:
        assert portion.work == sum(work[i] for i in portion.items)
        assert portion.work <= most or len(portion.items) <= least
    assert all(len(portion.items) >= least for portion in portions[:-1])


@given(works, works)
def test_the_part_with_the_longest_portion_comes_first(one, other):
    order = longest_first([_part("one", one), _part("other", other)])
    assert max((p.work for p in order), default=0.0) == (order[0].work if order else 0.0)
    for name in ("one", "other"):
        works_of_part = [p.work for p in order if p.part == name]
        assert works_of_part == sorted(works_of_part, reverse=True)
