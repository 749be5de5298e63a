"""What is taken of a folder of text, what is left out and why, and how the rest becomes text."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from nanochat.config import CorpusConfig
from nanochat.data.sources.corpus import download_shard, resolve_corpus
from nanochat.data.text.tokenize import read_texts
from nanochat.errors import DataError
from nanochat.runtime import Runtime

TEXTS = ['two\nlines, "quoted"', "naïve 日本", "third"]


def write(path: Path, texts=TEXTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), path)


def resolved(folder, **config):
    return resolve_corpus(CorpusConfig(source=str(folder), **config))


def test_parquet_is_taken_wherever_it_is_and_all_else_is_named_with_its_reason(tmp_path):
    folder, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    taken = {
        "a.parquet": "a",
        "lang=de/part-0.parquet": "lang-de-part-0",
        "lang=en/part-0.parquet": "lang-en-part-0",
        "other/UPPER.PARQUET": "other-UPPER",
        "spark.parquet/part-00000-f2.c000.snappy.parquet": "spark.parquet-part-00000-f2.c000.snappy",
        "val/part-0.parquet": "val-part-0",
    }
    for path in (*taken, "._a.parquet", "_delta_log/1.checkpoint.parquet", "lang=en/.part-0.parquet"):
        write(folder / path)
    write(elsewhere / "linked.parquet")
    (folder / "b.parquet").symlink_to(elsewhere / "linked.parquet")
    (folder / "more").symlink_to(elsewhere)
    for path in ("spark.parquet/_SUCCESS", "notes.md", "empty.parquet", "b.csv", "other/c.csv", "d.jsonl.gz"):
        (folder / path).write_bytes(b"" if path == "empty.parquet" else b"x")

    found = resolved(folder)

    assert [shard.name for shard in found.train] == sorted([*taken.values(), "b"])[:-1]
    assert found.validation.name == "val-part-0"
    assert {each.why: each.paths for each in found.left_out} == {
        "hidden (a name that begins with . or _)": (
            *("._a.parquet", "_delta_log/1.checkpoint.parquet"),
            *("lang=en/.part-0.parquet", "spark.parquet/_SUCCESS"),
        ),
        ".csv": ("b.csv", "other/c.csv"),
        ".jsonl.gz": ("d.jsonl.gz",),
        "empty (0 bytes)": ("empty.parquet",),
        "a link to a folder (give that folder, or copy it here)": ("more",),
        "not parquet": ("notes.md",),
    }
    named = resolved(folder, val_shard="lang=en/part-0", train_shards=2)
    assert [shard.name for shard in named.train] == ["a", "b"]
    assert named.validation.name == "lang-en-part-0"
    assert {each.why: each.paths for each in named.left_out[-2:]} == {
        "named as validation text, but another file is it": ("val/part-0.parquet",),
        "after the first 2 (corpus.train_shards)": tuple(list(taken)[1:2] + list(taken)[3:5]),
    }


def test_a_link_to_a_file_that_is_used_is_left_out_so_that_validation_is_not_trained_on(tmp_path):
    elsewhere = tmp_path / "elsewhere.parquet"
    folder = tmp_path / "texts"
    for path in (folder / "train.parquet", folder / "val.parquet", elsewhere):
        path.parent.mkdir(exist_ok=True)
        write(path)
    for name, target in {"a": folder / "val.parquet", "b": elsewhere, "c": elsewhere}.items():
        (folder / f"{name}.parquet").symlink_to(target)
    corpus = resolve_corpus(CorpusConfig(source=str(folder)))
    assert [shard.name for shard in corpus.train] == ["b", "train"]
    left_out = {each.why: each.paths for each in corpus.left_out}
    assert left_out == {"a link to a file that is used": ("a.parquet", "c.parquet")}


def test_a_broken_link_and_a_folder_that_cannot_be_listed_are_errors(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet")
    write(tmp_path / "val.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: a broken link to .*gone\.parquet"):
        resolved(tmp_path)
    (tmp_path / "b.parquet").unlink()
    write(tmp_path / "sub" / "c.parquet")
    listed = LocalFileSystem.ls

    def refusing(self, path, **options):
        if path.endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return listed(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "ls", refusing)
    with pytest.raises(DataError, match=r"cannot be read: .*sub: access denied"):
        resolved(tmp_path)


def test_one_request_lists_a_source_that_can_be_listed_at_once(tmp_path, monkeypatch):
    asked = []

    def find(self, path, **options):
        asked.append(path)
        marker = {f"{path}/sub/": {"name": f"{path}/sub/", "size": 0, "type": "file"}}
        return marker | {
            info["name"]: info for name in ("a", "sub/b", "val") for info in (_info(path, name),)
        }

    monkeypatch.setattr(LocalFileSystem, "find", find, raising=False)
    monkeypatch.setattr(LocalFileSystem, "ls", None)
    for name in ("a", "sub/b", "val"):
        write(tmp_path / f"{name}.parquet")
    found = resolved(tmp_path)
    assert ([shard.name for shard in found.train], found.left_out) == (["a", "sub-b"], ())
    assert asked == [str(tmp_path)]


def _info(root, name):
    return {"name": f"{root}/{name}.parquet", "size": 1, "type": "file", "ETag": name}


def _csv(texts, delimiter=","):
    out = io.StringIO()
    rows = csv.writer(out, delimiter=delimiter)
    rows.writerows([["id", "text"], *([str(i), text] for i, text in enumerate(texts))])
    return out.getvalue().encode()


def _lines(texts):
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


_AS = {
    ".csv": _csv,
    ".TSV": lambda texts: _csv(texts, "\t"),
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    ".txt": lambda texts: "\n".join(texts).encode(),
    ".csv.gz": lambda texts: gzip.compress(_csv(texts)),
    ".jsonl.xz": lambda texts: lzma.compress(_lines(texts)),
    ".txt.bz2": lambda texts: bz2.compress("\n".join(texts).encode()),
}


@pytest.mark.parametrize("suffix", _AS)
def test_the_line_that_is_printed_makes_text_of_what_was_left_out(suffix, tmp_path):
    folder = tmp_path / "it's a $folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/a", "val"):
        (folder / f"{name}{suffix}").write_bytes(_AS[suffix](TEXTS))
    (folder / f"._a{suffix}").write_bytes(b"\x00\xff not text")
    with pytest.raises(DataError, match=f"no parquet files among 3 entries.* 2 {suffix}") as caught:
        resolved(folder)
    prefix, line = caught.value.hint.split(": ", 1)
    assert prefix == "convert them"
    *command, code = shlex.split(line)
    assert command == ["uv", "run", "python", "-c"]
    exec(code, {})

    found = resolved(folder)
    assert (len(found.train), found.validation.name) == (1, f"val{suffix}")
    for shard in (*found.train, found.validation):
        download_shard(shard, {}, tmp_path / shard.name, Runtime())
        texts = [
            text.decode() for part in read_texts(tmp_path / shard.name / "text.parquet") for text in part
        ]
        assert texts == (["\n".join(TEXTS)] if "txt" in suffix else TEXTS)
    assert {each.why.partition(" ")[0]: each.convert for each in found.left_out} == {
        "hidden": None,
        "used": None,
    }
    (folder / f"c{suffix}").write_bytes(_AS[suffix](TEXTS))
    (new,) = [each for each in resolved(folder).left_out if each.why == suffix]
    assert (new.paths, new.convert) == ((f"c{suffix}",), line)


def test_many_files_of_one_document_become_two_shards(tmp_path):
    for i in range(45):
        (tmp_path / f"{i:02}.txt").write_text(f"document {i}")
    with pytest.raises(DataError) as caught:
        resolved(tmp_path)
    exec(shlex.split(caught.value.hint.split(": ", 1)[1])[-1], {})
    found = resolved(tmp_path)
    assert [shard.name for shard in (*found.train, found.validation)] == ["train.txt", "val.txt"]
    train, val = (
        pq.read_table(tmp_path / f"{name}.txt.parquet")["text"].to_pylist() for name in ("train", "val")
    )
    assert val == ["document 0", "document 20", "document 40"]
    assert sorted(train + val) == sorted(f"document {i}" for i in range(45))
