"""Predictions against published runs, and what is shown where nothing can be predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nanochat import recipes
from nanochat.chat import engine
from nanochat.costs import forecast as costs
from nanochat.costs.evaluation_cost import (
    WRITTEN_TOGETHER,
    EvaluationWork,
    evaluation_seconds,
    evaluation_work,
)
from nanochat.costs.forecast import forecast, training_rows
from nanochat.costs.reference_figures import PUBLISHED
from nanochat.data.chat.core_table import CORE_TASKS
from nanochat.data.chat.task_table import TASKS


def test_d20_is_predicted_near_the_published_four_hours_and_hundred_dollars():
    predicted = forecast(recipes.find("d20"))
    hours = predicted.seconds / 3600
    assert 3.3 < hours < 3.9  # published walls: 3 h 28 to 3 h 51, with 27 minutes of evaluations
    assert 75 < hours * predicted.machine.dollars_per_hour < 100
    assert predicted.of("pretrain").flops == pytest.approx(3.917670e19, rel=1e-6)


def test_what_runs_beside_training_takes_no_time_of_its_own_unless_it_is_all_there_is():
    d20 = forecast(recipes.find("d20"))
    beside = [cost for cost in d20.stages if cost.beside]
    assert [cost.stage for cost in beside] == ["contamination", "render"]
    alone = sum(cost.seconds for cost in d20.stages if not cost.beside)
    assert d20.seconds == alone
    assert costs.elapsed_s((cost, cost.seconds) for cost in beside) == sum(cost.seconds for cost in beside)
    dropping = forecast(recipes.find("d20", ["contamination.drop=true"]))  # tokens wait for it
    assert dropping.seconds == pytest.approx(alone + d20.of("contamination").seconds)


def test_training_takes_as_long_as_published():
    d20 = forecast(recipes.find("d20"))
    # Seven runs trained for 170 to 176 minutes; ours include 86 validations.
    assert 170 < d20.of("pretrain").seconds / 60 < 180
    assert d20.of("sft").seconds == pytest.approx(166)
    assert d20.of("midtrain").seconds < 8 * 60 + 54
    d32 = forecast(recipes.find("d32"))
    assert d32.of("pretrain").flops == pytest.approx(4.539628e20, rel=1e-6)
    # 31.3 hours published at 50.9 % of the peak.
    assert d32.of("pretrain").seconds / 3600 == pytest.approx(31.3 * 50.9 / 48, rel=0.04)


def test_disk_counts_text_tokens_models_and_restart_points():
    predicted = forecast(recipes.find("d20"))
    model = 4 * 560_988_160
    assert predicted.of("download").disk_bytes == 24_000_000_000
    assert predicted.of("tokenize").disk_bytes == pytest.approx(2 * 240 * 250e6 / 4.8)
    assert [predicted.of(s).disk_bytes for s in ("pretrain", "midtrain", "sft", "publish")] == [model] * 4
    assert predicted.restart_bytes == 2 * (model + 4 * 20 * 19_660_800 + 8 * 2 * 83_886_080)


def test_fewer_steps_problems_and_shards_cost_less():
    whole = forecast(recipes.find("d20"))
    part = forecast(
        recipes.find(
            "d20",
            [
                "pretrain.steps=10700",
                "evaluate.max_problems=100",
                "evaluate.core=false",
                "corpus.train_shards=119",
            ],
        )
    )
    assert part.of("pretrain").seconds == pytest.approx(whole.of("pretrain").seconds / 2)
    start = evaluation_seconds(recipes.find("d20"), PUBLISHED, EvaluationWork())
    assert part.of("evaluate_base").seconds - start < (whole.of("evaluate_base").seconds - start) / 5
    assert part.of("download").disk_bytes == whole.of("download").disk_bytes / 2


def test_evaluations_are_counted_and_take_less_than_one_item_at_a_time_did():
    d20 = recipes.find("d20")
    base, sft = (evaluation_work(d20.evaluate, base=base) for base in (True, False))
    written = -(-1_319 // WRITTEN_TOGETHER), -(-164 // WRITTEN_TOGETHER)  # batches
    assert base.steps == sum(written) * 512
    assert sft.steps == written[0] * TASKS["gsm8k"].reply_steps + written[1] * TASKS["humaneval"].reply_steps
    core = sum(task.items * task.read for task in CORE_TASKS.values())
    assert base.read == sft.read + core
    predicted = forecast(d20)
    # Published for eight GPUs: 33 s for one split's bits per byte, 262 s for CORE, 415 s for the chat tasks.
    assert 60 < predicted.of("evaluate_base").seconds < 33 + 262 + 415
    assert 40 < predicted.of("evaluate_sft").seconds < 33 + 415
    assert f"{base.read / 1e6:.1f} million tokens read" in predicted.of("evaluate_base").basis
    assert (
        f"{evaluation_seconds(d20, PUBLISHED, EvaluationWork()):.0f} s to start"
        in predicted.of("evaluate_sft").basis
    )
    spelling = forecast(recipes.find("d20-spelling"))
    assert predicted.of("evaluate_sft").basis in spelling.of("evaluate_sft").basis
    assert spelling.of("evaluate_sft").basis.endswith("; not counted: spelling_bee")
    assert engine._BATCH.rows == WRITTEN_TOGETHER


def test_an_evaluation_is_shared_by_all_gpus_and_costs_as_often_as_it_is_sampled():
    d20 = recipes.find("d20")
    one = replace(PUBLISHED, gpus=1)
    start = evaluation_seconds(d20, PUBLISHED, EvaluationWork())
    for base in (True, False):
        work = evaluation_work(d20.evaluate, base=base)
        alone, shared = (evaluation_seconds(d20, machine, work) - start for machine in (one, PUBLISHED))
        assert alone == pytest.approx(8 * shared)
    often = recipes.find("d20", ["evaluate.num_samples=4", "evaluate.temperature=1", "evaluate.core=false"])
    once = evaluation_work(d20.evaluate, base=False)
    assert evaluation_work(often.evaluate, base=False).steps == pytest.approx(4 * once.steps, rel=0.05)


def test_a_recipe_too_small_for_published_figures_gets_no_hours():
    predicted = forecast(recipes.find("toy"))
    assert predicted.seconds is None
    assert predicted.of("pretrain").flops == pytest.approx(150 * 16 * 256 * 6_881_280, rel=0.2)


def test_what_depends_on_unseen_data_is_unknown_and_not_guessed(tmp_path):
    elsewhere = recipes.find("d20", [f"tasks.source={tmp_path}", "corpus.source=texts"])
    predicted = forecast(elsewhere)
    assert training_rows(elsewhere, elsewhere.sft) is None
    for stage in ("download", "tokenize", "contamination", "tasks", "midtrain", "sft"):
        assert predicted.of(stage).seconds is None
    assert predicted.of("sft").steps is None
    assert predicted.of("pretrain").seconds is not None
    for override in ("midtrain.mixture=[]", "tasks.own=mine.jsonl"):
        changed = recipes.find("d20", [override])
        assert training_rows(changed, changed.midtrain) is None


def test_a_stage_that_is_not_predicted_has_no_time_and_says_so():
    cost = forecast(recipes.find("d20")).of("import")
    assert (cost.stage, cost.seconds, cost.basis) == ("import", None, "not predicted")


@pytest.mark.parametrize(
    ("rows", "repeat", "validating"), [(2, 1, 1), (123, 1, 2), (1500, 2, 60), (4000, 9, 256)]
)
def test_rows_that_validate_do_not_count_as_trained(rows, repeat, validating):
    toy = recipes.find("toy", [f"sft.mixture=[{{task: gsm8k, rows: {rows}, repeat: {repeat}}}]"])
    assert training_rows(toy, toy.sft) == rows * repeat - validating


def test_toy_rows_never_exceed_the_toy_world():
    toy = recipes.find("toy", ["sft.mixture=[{task: gsm8k, rows: 9999}]"])
    assert costs.mixture_rows(toy, toy.sft.mixture) == toy.tasks.toy.questions
