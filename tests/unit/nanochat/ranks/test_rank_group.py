"""Who has which rows, and what a process by itself sends: nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nanochat.ranks.rank_group import ALONE, RankGroup


@given(st.integers(0, 40), st.integers(1, 9))
def test_all_ranks_together_have_each_row_once_and_in_order(count: int, size: int) -> None:
    rows = list(range(count))
    parts = [rows[RankGroup(rank, size).rows(count)] for rank in range(size)]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_by_itself_hears_its_own_numbers() -> None:
    assert RankGroup.current() == ALONE
    assert ALONE.gather(3, 0.5) == [(3, 0.5)]
    assert ALONE.total(3, 0.5) == (3, 0.5)
