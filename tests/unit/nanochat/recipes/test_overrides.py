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
        ("pretrain.optimizer.matrix_lr=nan", "pretrain.optimizer.matrix_lr is nan, not a finite number"),
        ("pretrain.optimizer.matrix_lr=.nan", "pretrain.optimizer.matrix_lr is '.nan', not a finite number"),
        ("sft.epochs=yes", "sft.epochs is 'yes', not a whole number (an integer)"),
        ("sft.epochs=1:30", "sft.epochs is '1:30', not a whole number (an integer)"),
        ("sft.epochs=5 #6", "sft.epochs is '5 #6', not a whole number (an integer)"),
        ("evaluate.core=", "evaluate.core is '', neither true nor false"),
        ("evaluate.core=maybe", "evaluate.core is 'maybe', neither true nor false"),
        ("pretrain.prompts=", "pretrain.prompts is None, not a list; write it as [first, second]"),
        ("sft.mixture=[gsm8k]", "sft.mixture.0 is 'gsm8k', not a set of fields; write it as {name: value}"),
        (
            "sft.mixture=[{task: gsm8k, rows: 1:30}]",
            "sft.mixture.0.rows is '1:30', not a whole number (an integer)",
        ),
        ("sft.mixture=[{task: gsm8k, rows: 0}]", "sft.mixture.0.rows is '0', but must be greater than 0"),
        ("sft.mixture=[{rows: 1}]", "sft.mixture.0.task is {'rows': '1'}, which lacks this field"),
        ("sft.mixture=[{task: a, row: 1}]", "sft.mixture.0.row is '1', but there is no field of that name"),
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


AS_TYPED = (
    *(
        "my #1.jsonl",
        "a: b.jsonl",
        "- a.jsonl",
        "!a.jsonl",
        "&a.jsonl",
        "*.jsonl",
        "[draft] a.jsonl",
        "a [1]",
    ),
    *("yes", "no", "on", "off", "true", "null", "~", "1e3", "007", "2026-01-02", "0x10", "1:30", "nan"),
    *(
        "it's",
        "'5'",
        '"5"',
        "'",
        '"a',
        "{a: 1}",
        "@a",
        "%a",
        "`a`",
        "a\\b",
        " a ",
        "a, b",
        "| a",
        "> a",
        "? a",
    ),
)


@pytest.mark.parametrize("text", AS_TYPED)
def test_text_is_what_was_typed(text):
    found = recipes.find("toy", [f"tasks.revision={text}", f"tasks.own={text}", f"sft.prompts={text}"])
    assert found.tasks.revision == text
    assert found.tasks.own == found.sft.prompts == (text,)
    if "," not in text:
        listed = recipes.find("toy", [f"tasks.own=[first,{text} , [3] ]"])
        quoted = text[0] == text[-1] and text[0] in "'\"" and len(text) > 1
        assert listed.tasks.own == ("first", text.strip("'\"") if quoted else text.strip(), "[3]")
    if text != "null":
        assert recipes.find("toy", [f"corpus.revision={text}"]).corpus.revision == text


def test_a_field_that_can_be_empty_is_so_with_null_or_nothing():
    for text in ("null", ""):
        found = recipes.find("d20", [f"corpus.revision={text}", f"evaluate.max_problems={text}"])
        assert found.corpus.revision is found.evaluate.max_problems is None


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("[]", ()),
        ("[a]", ("a",)),
        ("[a, b,]", ("a", "b")),
        ("""["a, b", 'c, d', 'it''s', "\\u00e9\\n"]""", ("a, b", "c, d", "it's", "é\n")),
        ("[' a ', '']", (" a ", "")),
    ],
)
def test_several_texts_are_a_list_with_quotes_around_commas(text, texts):
    assert recipes.find("toy", [f"sft.prompts={text}"]).sft.prompts == texts


def test_numbers_are_decimal_and_words_are_true_or_false():
    found = recipes.find("d20", ["pretrain.optimizer.matrix_lr=1e-3", "sft.epochs=010", "evaluate.core=no"])
    assert found.pretrain.optimizer.matrix_lr == 1e-3
    assert found.sft.epochs == 10
    assert not found.evaluate.core
    value = "[{task: no, rows: 010}, {task: 2026-01-02, rows: 1_0, shuffle: off}, {task: 0x10, rows: null}]"
    *mixture, last = recipes.find("toy", [f"sft.mixture={value}"]).sft.mixture
    assert [(entry.task, entry.rows, entry.shuffle) for entry in mixture] == [
        ("no", 10, True),
        ("2026-01-02", 10, False),
    ]
    assert (last.task, last.rows) == ("0x10", None)
    assert recipes.find("toy", ["pretrain.model.architecture=2026"]).pretrain.model.architecture == "2026"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("sft.mixture=[", "expected the node content"),
        ("sft.mixture=" + "[" * 5000, "brackets are nested too deeply"),
        ("sft.mixture=[{task: gsm8k, task: mmlu}]", "the key 'task' is there twice"),
        ("sft.mixture=[{task: gsm8k}] #, {task: mmlu}]", "would be a comment"),
        ("sft.mixture=[{task: own/my #1}]", "expected ',' or '}'"),
        ("sft.mixture=[&a {task: gsm8k}, *a]", "refers to another part"),
        ("sft.mixture=[{task: gsm8k, rows: !!int ''}]", "is a tag, which is not supported"),
        ("sft.prompts=[a,, b]", "an element is empty"),
        (r'sft.prompts=["C:\x"]', "an escape that JSON does not know"),
        ("sft.epochs", "has no '='"),
    ],
)
def test_an_override_that_cannot_be_read_is_quoted_with_the_reason(override, reason):
    message = refused(override)
    assert reason in message and override.partition("=")[2][:2] in message


def test_every_choice_of_a_field_is_named():
    known = ModelConfig.model_fields["architecture"].annotation
    assert get_origin(known) is Literal
    assert "but must be 'classic'" in refused("pretrain.model.architecture=modern")


def test_a_recipe_round_trips_through_its_fields():
    toy = recipes.find("toy")
    assert Recipe.model_validate(toy.model_dump()) == toy
