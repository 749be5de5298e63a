from __future__ import annotations

import re
from hashlib import sha256

import pytest
from pydantic import ValidationError

from nanochat.config import ShardConfig
from nanochat.data.sources.shard_names import distinct_names, shard_name


def test_an_ordinary_file_keeps_its_name():
    paths = ["shard_00000.parquet", "part-00001-af3.c000.snappy.parquet", "Texts 2.PARQUET", "no_suffix"]
    assert distinct_names(paths) == ["shard_00000", "part-00001-af3.c000.snappy", "Texts-2", "no_suffix"]


def test_paths_that_look_alike_have_different_names_whatever_else_there_is():
    ending = sha256(b"a b.parquet").hexdigest()[:8]
    paths = ["a b.parquet", "a/b.parquet", "a-b.parquet", "A-B.parquet", f"a-b-{ending}.parquet", "b.parquet"]
    names = distinct_names(paths)
    assert len({name.lower() for name in names}) == len(paths)
    assert names[-1] == "b"


HOSTILE = [
    "..",
    "-rf",
    "x" * 99 + "日本",
    "../../secret",
    "/etc/passwd",
    ".hidden",
    "\x1b[31mred",
    "a\nb",
    "日本",
    "",
    "x" * 5000,
    "\udcff",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_name_is_safe_as_part_of_an_id_or_a_path(path):
    name = shard_name(path)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{,99}", name)
    assert ShardConfig(name=name).name == name
    if name != path:
        with pytest.raises(ValidationError):
            ShardConfig(name=path)
    assert len(set(distinct_names([path, name]))) == 2 or path == name
