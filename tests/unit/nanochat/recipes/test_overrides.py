"""Overrides: what they change, and that a bad value of any field is explained in the project's own words."""

from __future__ import annotations

import re
from typing import Literal, get_origin

import pytest

from nanochat import recipes
from nanochat.config import ModelConfig, Recipe
from nanochat.errors import ConfigError
from nanochat.recipes.overrides import field_names

# Signs of pydantic's own wording.
FOREIGN = re.compile(
    r"Input should|Field required|Extra inputs|pydantic|valid (integer|tuple|string|number)|type="
)
BAD = (
    "-1",
    "0",
    "1.5",
    "nonsense",
    "[1, {a: b}]",
    "{a: 1}",
    "null",
    "true",
    ".nan",
    ".inf",
    "99999999999999999999",
)


def refused(*overrides, recipe="d20"):
    with pytest.raises(ConfigError) as caught:
        recipes.find(recipe, overrides)
    assert not FOREIGN.search(str(caught.value)), caught.value
    assert caught.value.hint
    return str(caught.value)


def test_no_bad_value_of_any_field_brings_foreign_words_or_another_error():
    told = 0
    for name, _, _ in field_names(recipes.find("toy")):
        if name in ("depth", "name"):
            continue
        for value in BAD:
            try:
                recipes.find("toy", [f"{name}={value}"])
            except ConfigError as error:
                told += 1
                assert not FOREIGN.search(str(error)), f"{name}={value}: {error}"
                assert error.hint, f"{name}={value}: {error}"
    assert told > 200


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.epochs=zero", "sft.epochs is 'zero', not a whole number (an integer)"),
        ("sft.epochs=1.5", "sft.epochs is 1.5, not a whole number (an integer)"),
        ("sft.epochs=0", "sft.epochs is 0, but must be greater than 0"),
        ("pretrain.warmdown_ratio=1.5", "pretrain.warmdown_ratio is 1.5, but must be at most 1.0"),
        ("pretrain.warmdown_ratio=-0.1", "pretrain.warmdown_ratio is -0.1, but must be at least 0.0"),
        ("pretrain.optimizer.matrix_lr=.nan", "pretrain.optimizer.matrix_lr is nan, not a finite number"),
        ("evaluate.core=maybe", "evaluate.core is 'maybe', neither true nor false"),
        ("pretrain.prompts=abc", "pretrain.prompts is 'abc', not a list; write it as [first, second]"),
        ("sft.mixture=[gsm8k]", "sft.mixture.0 is 'gsm8k', not a set of fields; write it as {name: value}"),
        ("sft.mixture=[{task: gsm8k, rows: 0}]", "sft.mixture.0.rows is 0, but must be greater than 0"),
        ("sft.mixture=[{rows: 1}]", "sft.mixture.0.task is {'rows': 1}, which lacks this field"),
        ("sft.mixture=[{task: a, row: 1}]", "sft.mixture.0.row is 1, but there is no field of that name"),
        ("tokenizer.vocab_size=100", "tokenizer.vocab_size is 100, but must be at least 300"),
    ],
)
def test_a_bad_value_is_told_with_its_limit(override, message):
    assert refused(override) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.batch_tokens=500000", "not a multiple of model.sequence_len (2048); use 499712 or 501760"),
        ("midtrain.batch_tokens=1000", "midtrain.batch_tokens is 1000, not a multiple of model.sequence_len"),
        ("pretrain.model.n_embd=1290", "head dimension is 129"),
        ("pretrain.model.n_head=7", "n_embd is 1280, not a multiple of n_head (7)"),
        ("tokenizer.vocab_size=32768", "tokenizer.vocab_size is 32768 but pretrain.model.vocab_size is 6"),
    ],
)
def test_fields_that_do_not_fit_each_other_say_what_would(override, message):
    assert message in refused(override)


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no field 'sft\.epoch'") as caught:
        recipes.find("toy", ["sft.epoch=2"])
    assert "sft.epochs" in str(caught.value.hint)


def test_text_that_looks_like_a_number_or_date_stays_text():
    found = recipes.find("d20", ["corpus.val_shard=007", "corpus.revision=2026-01-02", "publish.title='5'"])
    assert (found.corpus.val_shard, found.corpus.revision) == ("007", "2026-01-02")
    assert found.publish.title == "5"
    assert recipes.find("d20", ["corpus.revision=null"]).corpus.revision is None


def test_numbers_and_lists_are_read_as_people_write_them():
    found = recipes.find("d20", ["pretrain.optimizer.matrix_lr=1e-3", "pretrain.prompts=[One, Two]"])
    assert found.pretrain.optimizer.matrix_lr == 1e-3
    assert found.pretrain.prompts == ("One", "Two")


@pytest.mark.parametrize("override", ["pretrain.steps=[", "sft.epochs", "publish.title='a"])
def test_an_override_that_cannot_be_read_is_quoted(override):
    assert override.partition("=")[2][:2] in refused(override)


def test_every_choice_of_a_field_is_named():
    known = ModelConfig.model_fields["architecture"].annotation
    assert get_origin(known) is Literal
    assert "but must be 'classic'" in refused("pretrain.model.architecture=modern")


def test_a_recipe_round_trips_through_its_fields():
    toy = recipes.find("toy")
    assert Recipe.model_validate(toy.model_dump()) == toy
