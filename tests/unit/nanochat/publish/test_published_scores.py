"""Which records have published scores beside them."""

from __future__ import annotations

import pytest

from nanochat.evals.results import in_order
from nanochat.publish.published_scores import D20, published_scores
from tests.support.d20_records import d20_records


@pytest.mark.parametrize(
    "override",
    [
        "pretrain.prompts=[Once]",
        "pretrain.compute.precision=float32",
        "midtrain.seed=7",
        "evaluate.max_problems=100",
        "publish.title=mine",
    ],
)
def test_what_changes_no_training_leaves_the_published_recipe(override):
    assert published_scores(d20_records()) == published_scores(d20_records(override)) == D20


@pytest.mark.parametrize(
    "override",
    [
        "depth=12",
        "pretrain.steps=21399",
        "midtrain.epochs=2",
        "sft.init_lr_frac=0.03",
        "tokenizer.max_chars=1000000",
        "corpus.train_shards=200",
        "contamination.drop=true",
    ],
)
def test_another_recipe_has_no_published_scores(override):
    assert published_scores(d20_records(override)) == ()


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("tasks", {"toy": {"seed": 1}}),
        ("tasks", {"files": [{"path": "own/mine.jsonl"}]}),
        ("download", {"toy": {"seed": 1}}),
        ("download", {"index": 0}),
    ],
)
def test_other_data_has_no_published_scores(stage, change):
    records = [
        {**record, "payload": {"config": {**record["payload"]["config"], **change}}}
        if record["stage"] == stage
        else record
        for record in d20_records()
    ]
    assert published_scores(records) == ()
    assert published_scores([record for record in d20_records() if record["stage"] != stage]) == ()


def test_published_means_are_those_of_the_published_tasks():
    chances = {"mmlu": 0.25, "arc_easy": 0.25, "arc_challenge": 0.25, "gsm8k": 0.0, "humaneval": 0.0}
    for published in D20:
        assert in_order(published.tasks) == list(published.tasks) and len(published.tasks) == 5
        centered = [(score - chances[name]) / (1 - chances[name]) for name, score in published.tasks.items()]
        assert sum(centered) / 5 == pytest.approx(published.metrics["chatcore"], abs=5e-5)
