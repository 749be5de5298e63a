from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.store.fingerprint import canonical_json, fingerprint
from nanochat import recipes
from nanochat.config import PretrainConfig, ShardConfig


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    tags: tuple[str, ...]


def test_keys_are_sorted_and_spaces_left_out():
    assert canonical_json({"b": [1, 2.5, None], "a": {"z": True, "y": "é"}}) == (
        '{"a":{"y":"\\u00e9","z":true},"b":[1,2.5,null]}'
    )


def test_fingerprint_is_the_sha256_of_the_canonical_text():
    assert fingerprint({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_a_dataclass_and_an_enum_equal_the_plain_values_they_hold():
    assert canonical_json([Point(1, ("a",)), Colour.RED]) == canonical_json([{"tags": ["a"], "x": 1}, "red"])


def test_a_config_is_hashed_by_its_fields_and_not_by_where_bytes_lie():
    here, there = (ShardConfig(name="shard_00000", url=url) for url in ("/a", "s3://b"))
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(PretrainConfig()) != fingerprint(PretrainConfig(steps=7))


@pytest.mark.parametrize("stage", ["corpus", "tasks", "tokenizer", "pretrain", "midtrain", "sft", "evaluate"])
def test_a_config_and_its_identity_have_one_fingerprint(stage):
    config = getattr(recipes.find("2026-d12"), stage)
    assert fingerprint({"config": config}) == fingerprint({"config": config.identity()})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "config.lr is nan"),
        (float("inf"), "config.lr is inf"),
        ({3, 1}, "config.lr is set, .* sorted tuple"),
        (Path("/data"), "digest"),
        (b"bytes", "hex str"),
        (len, 'the function len, .* "module:function"'),
        (object(), "config.lr is object"),
        ({1: "a"}, r"config.lr has the key 1 of type int"),
        ("\ud800", "surrogate"),
        ([0, [1, float("nan")]], r"config.lr\[1\]\[1\]"),
    ],
)
def test_a_value_without_a_stable_form_is_refused_with_its_field_and_the_fix(value, told):
    with pytest.raises(TypeError, match=told.replace("config", r"value\.config")):
        canonical_json({"config": {"lr": value}})


def test_negative_zero_is_zero():
    assert fingerprint(-0.0) == fingerprint(0.0)
