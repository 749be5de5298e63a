"""The slow precision is named with the processor and the way out, where stages train on a CPU."""

from __future__ import annotations

import pytest

from flows.cli import precision
from flows.cli.precision import advice, tell_precision, to_train
from flows.plan import make_plan
from flows.store import Store
from nanochat import recipes
from nanochat.model import product_speed
from nanochat.model.product_speed import product_seconds


@pytest.fixture
def plan_of(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    return lambda recipe, *overrides, **options: make_plan(recipes.find(recipe, overrides), store, **options)


def test_a_slow_bfloat16_is_a_warning_with_the_option_that_changes_it():
    stages = {"pretrain": "bfloat16", "midtrain": "bfloat16", "sft": "float32"}
    line, slow = advice(stages, {"float32": 1.0, "bfloat16": 3.0}, "Xeon E5")
    assert slow
    assert line.startswith(
        "precision: float32 products are 3.0 times as fast as bfloat16 ones here (Xeon E5)"
    )
    assert line.endswith("-o pretrain.compute.precision=float32 -o midtrain.compute.precision=float32")


def test_a_quicker_bfloat16_is_told_without_a_warning_and_the_quick_one_is_left_alone():
    line, slow = advice({"sft": "float32"}, {"float32": 2.7, "bfloat16": 1.0}, "EPYC")
    assert not slow and "bfloat16 products are 2.7 times" in line
    assert line.endswith("-o sft.compute.precision=bfloat16")
    line, slow = advice({"sft": "bfloat16"}, {"float32": 2.7, "bfloat16": 1.0}, "EPYC")
    assert not slow and "-o" not in line
    line, slow = advice({"sft": "bfloat16"}, {"float32": 1.0, "bfloat16": 1.1}, "EPYC")
    assert not slow and "about the same time" in line


def test_only_stages_that_are_to_be_trained_count(plan_of):
    assert to_train(plan_of("toy", "sft.compute.precision=bfloat16")) == {
        "pretrain": "float32",
        "midtrain": "float32",
        "sft": "bfloat16",
    }
    assert to_train(plan_of("toy", until="tokenizer")) == {}


def test_it_is_measured_where_it_matters(plan_of, monkeypatch, capsys):
    widths = []

    def measured(width):
        widths.append(width)
        return {"float32": 1.0, "bfloat16": 3.0}

    monkeypatch.setattr(product_speed, "product_seconds", measured)
    monkeypatch.setattr(precision, "hardware", lambda: {"cpu": "Xeon E5"})
    tell_precision(plan_of("toy"))
    tell_precision(plan_of("toy", "pretrain.compute.precision=bfloat16", until="tokenizer"))
    assert widths == [] and capsys.readouterr().err == ""
    tell_precision(plan_of("toy", "pretrain.compute.precision=bfloat16"))
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("warning: precision: float32 products are 3.0 times")
    tell_precision(plan_of("toy", "pretrain.steps=2000"))
    assert capsys.readouterr().err == (
        "precision: float32 products are 3.0 times as fast as bfloat16 ones here (Xeon E5)\n"
    )
    assert len(widths) == 2


def test_a_product_is_measured_in_both_precisions():
    seconds = product_seconds(64)
    assert set(seconds) == {"float32", "bfloat16"}
    assert all(0 < value < float("inf") for value in seconds.values())
