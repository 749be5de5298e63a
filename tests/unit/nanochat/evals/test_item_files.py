from __future__ import annotations

import json
import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.errors import DataError
from nanochat.evals.item_files import as_result, as_row, read_items, write_items
from nanochat.evals.item_results import ItemResult

_texts = st.text(max_size=8)
results = st.builds(
    ItemResult,
    item=st.integers(0, 10**6),
    prompt_sha256=_texts,
    gold=_texts,
    predictions=st.lists(_texts, max_size=3).map(tuple),
    right=st.lists(st.booleans(), max_size=3).map(tuple),
    loglikelihoods=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    replies=st.lists(_texts, max_size=2).map(tuple),
    group=_texts,
)


@given(st.lists(results, max_size=5, unique_by=lambda result: result.item))
def test_what_is_written_is_read_back_sorted_and_the_same_bytes_in_any_order(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("items")
    write_items(folder / "a.parquet", made)
    write_items(folder / "b.parquet", reversed(made))
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert read_items(folder / "a.parquet") == sorted(made, key=lambda result: result.item)
    assert [as_result(json.loads(json.dumps(as_row(result)))) for result in made] == made


def test_a_likelihood_that_is_no_number_is_kept_as_it_is(tmp_path):
    made = ItemResult(item=0, prompt_sha256="", gold="", predictions=(), right=(), loglikelihoods=(math.nan,))
    write_items(tmp_path / "a.parquet", [made])
    [read] = read_items(tmp_path / "a.parquet")
    assert math.isnan(read.loglikelihoods[0])
    assert replace(read, loglikelihoods=()) == replace(made, loglikelihoods=())


def test_a_file_that_holds_something_else_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"a\.parquet: not a file of item results"):
        read_items(tmp_path / "a.parquet")


def test_text_that_is_not_utf_8_is_no_file_of_results(tmp_path):
    made = ItemResult(item=0, prompt_sha256="", gold="A", predictions=(), right=())
    write_items(tmp_path / "a.parquet", [made])
    table = pq.read_table(tmp_path / "a.parquet")
    text = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(table.set_column(2, table.field("gold"), text), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: not a file of item results"):
        read_items(tmp_path / "a.parquet")
