"""Text in any column that can hold it: the same documents come out, or an error says where it is not text."""

from __future__ import annotations

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config import ShardConfig
from nanochat.data.sources.corpus import download_shard
from nanochat.data.text.tokenize import read_texts
from nanochat.errors import DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.word_counts import count_words

TEXTS = ["some text", None, "naïve 日本", "", "some text", None]
COUNTS = {"documents": 6, "characters": 26, "bytes": 31}


def of_type(kind):
    return pa.array(TEXTS, pa.string()).cast(kind)


COLUMNS = {
    "string": pa.array(TEXTS, pa.string()),
    "large string": pa.array(TEXTS, pa.large_string()),
    "string view": pa.array(TEXTS, pa.string_view()),
    "binary": of_type(pa.binary()),
    "large binary": of_type(pa.large_binary()),
    "binary view": of_type(pa.binary()).cast(pa.binary_view()),
    "dictionary": pa.array(TEXTS, pa.string()).dictionary_encode(),
    "dictionary of bytes": of_type(pa.binary()).dictionary_encode(),
    "categorical": pl.Series(TEXTS, dtype=pl.Categorical),
    "enum": pl.Series(TEXTS, dtype=pl.Enum(sorted({t for t in TEXTS if t is not None}))),
}


def write(path, column):
    if isinstance(column, pl.Series):
        pl.DataFrame({"id": range(len(column)), "text": column}).write_parquet(path)
    else:
        pq.write_table(pa.table({"id": range(len(column)), "text": column}), path, row_group_size=2)


def download(path, out):
    return download_shard(ShardConfig(name="shard", url=str(path)), {}, out, Runtime())


@pytest.mark.parametrize("kind", COLUMNS)
def test_whatever_type_the_column_has_the_same_documents_come_out(kind, tmp_path, caplog):
    path, out = tmp_path / "source.parquet", tmp_path / "out"
    write(path, COLUMNS[kind])
    metrics = download(path, out)
    assert metrics == {
        **COUNTS,
        "null_documents": 2,
        "empty_documents": 1,
        "file_bytes": (out / "text.parquet").stat().st_size,
    }
    assert json.loads((out / "stats.json").read_text()) == COUNTS
    assert [text.decode() for part in read_texts(out / "text.parquet") for text in part] == [
        text or "" for text in TEXTS
    ]
    words = count_words([out / "text.parquet"], doc_cap=100, max_chars=1000)
    assert (words.documents, words.characters) == (6, 26)
    unchanged = (out / "text.parquet").read_bytes() == path.read_bytes()
    assert unchanged == (kind in ("string", "large string"))
    assert [p.name for p in sorted(out.iterdir())] == ["stats.json", "text.parquet"]
    assert "source.parquet: 2 null and 1 empty rows of 6 hold no text" in caplog.text


@pytest.mark.parametrize("kind", [pa.binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_bytes_that_are_not_utf8_are_named_by_file_row_group_column_and_row(kind, tmp_path):
    rows = pa.array([b"a", None, b"b", b"c", b"d", b"Stra\xdfe"], pa.binary())
    write(tmp_path / "latin.parquet", rows.dictionary_encode() if pa.types.is_dictionary(kind) else rows)
    where = r"latin\.parquet: row group 2, column 'text': row 1 of the group is not UTF-8.*b'Stra"
    with pytest.raises(DataError, match=where) as caught:
        download(tmp_path / "latin.parquet", tmp_path / "out")
    assert "must be decoded" in caught.value.hint


def test_a_damaged_page_is_named_by_its_row_group(tmp_path):
    table = pa.table({"text": [f"document number {i} as it stands in the file" for i in range(30)]})
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    path = tmp_path / "flipped.parquet"
    pq.write_table(table, path, row_group_size=10, write_page_checksum=True, **plain)
    path.write_bytes(path.read_bytes().replace(b"number 15", b"numbes 15", 1))
    with pytest.raises(DataError, match=r"flipped\.parquet: row group 1, column 'text': not readable"):
        download(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table([["a"], ["b"]], names=["text", "text"]), "2 columns 'text'; its columns are text, text"),
        (pa.table({"text": [["a"]]}), "holds list<"),
    ],
)
def test_a_column_that_cannot_be_text_is_refused(table, message, tmp_path):
    pq.write_table(table, tmp_path / "shard.parquet")
    with pytest.raises(DataError, match=message):
        download(tmp_path / "shard.parquet", tmp_path / "out")
