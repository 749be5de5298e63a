from __future__ import annotations

import polars as pl

from nanochat.tokenizer.word_counts import count_words


def _file(tmp_path, name, texts):
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / name)
    return tmp_path / name


def test_words_are_cut_and_counted_as_the_pattern_says(tmp_path):
    file = _file(tmp_path, "a.parquet", ["It's 2024,  it's  fine!\n\n ok", "It's"])
    counts = dict(count_words([file], doc_cap=100, max_chars=1000).words.iter_rows())
    expected = ["It", "'s", " ", "20", "24", ",", " ", " it", "'s", " ", " fine", "!\n\n", " ok", "It", "'s"]
    assert counts == {word: expected.count(word) for word in expected}


def test_documents_are_cut_and_reading_stops_after_the_document_that_reaches_the_limit(tmp_path):
    files = [
        _file(tmp_path, "a.parquet", ["aaaa", "bbbbbbbb", None]),
        _file(tmp_path, "b.parquet", ["cc", "dd"]),
    ]
    counts = count_words(files, doc_cap=5, max_chars=10)
    assert dict(counts.words.iter_rows()) == {"aaaa": 1, "bbbbb": 1, "cc": 1}
    assert counts.characters == 11
    assert dict(count_words(files, doc_cap=5, max_chars=4).words.iter_rows()) == {"aaaa": 1}
    assert count_words(files, doc_cap=5, max_chars=10**10).characters == 13


def test_counts_of_many_files_are_those_of_one(tmp_path):
    texts = [f"a w{i} w{i % 7} {'b' * (i % 3)}" for i in range(63)]
    files = [_file(tmp_path, f"{i:02d}.parquet", texts[i : i + 5]) for i in range(0, len(texts), 5)]
    one = count_words([_file(tmp_path, "one.parquet", texts)], doc_cap=99, max_chars=400)
    many = count_words(files, doc_cap=99, max_chars=400)
    assert many.words.equals(one.words)
    assert (many.documents, many.characters) == (one.documents, one.characters)
    assert many.documents < 63
