from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.text.left_out import LeftOut, read_left_out, write_left_out
from nanochat.errors import DataError


@given(st.lists(st.lists(st.text(max_size=3), max_size=4), max_size=5), st.data())
def test_every_text_either_stays_in_its_place_or_is_counted(batches, data):
    texts = [text for batch in batches for text in batch]
    numbers = data.draw(st.sets(st.sampled_from(range(len(texts))))) if texts else set()
    leaving = LeftOut(frozenset(numbers))
    encoded = [[text.encode() for text in batch] for batch in batches]
    kept = [raw.decode() for batch in leaving.rest_of(encoded) for raw in batch]
    assert kept == [text for i, text in enumerate(texts) if i not in numbers]
    gone = [texts[i] for i in numbers]
    assert leaving.counts == {
        "documents": len(gone),
        "characters": sum(map(len, gone)),
        "bytes": sum(len(text.encode()) for text in gone),
    }


def test_a_list_for_a_longer_text_is_refused():
    leaving = LeftOut(frozenset({1, 4}))
    with pytest.raises(DataError, match="2 documents are to be left out, but 1 of them are among the 3"):
        list(leaving.rest_of([[b"a", b"b"], [b"c"]]))


def test_a_list_comes_back_as_written_and_a_missing_one_names_its_file(tmp_path):
    write_left_out(tmp_path, np.array([2, 63, 1000]))
    assert read_left_out(tmp_path) == {2, 63, 1000}
    with pytest.raises(DataError, match=r"documents\.npy does not hold numbers"):
        read_left_out(tmp_path / "elsewhere")
