from __future__ import annotations

import re

import pytest

from nanochat.config import EvaluateConfig
from nanochat.data.chat.core_table import CORE_ITEMS
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.problem_sets import CHATCORE, asked, means
from nanochat.evals.task_results import TaskResult


def _results(problems, accuracy=0.5):
    return {
        name: TaskResult(accuracy=accuracy, baseline=0.0, problems=count, of=count)
        for name, count in problems.items()
    }


def _task(name, rows):
    return ChatTask(name, "choice", 0.0, range(rows), lambda row: [], lambda row: None)


def test_the_subset_is_upstreams():
    # The first rows of a thousand after `shuffle(seed=42)` of upstream's data set.
    assert asked(_task("mmlu", 1000), 8) == [978, 933, 859, 916, 127, 608, 856, 260]
    assert sorted(asked(_task("mmlu", 63), None)) == list(range(63))
    assert asked(_task("spelling_bee", 256), 3) == [0, 1, 2]


def test_chatcore_is_what_a_recipe_asks_unless_it_says_otherwise():
    assert tuple(CHATCORE) == EvaluateConfig().chat_tasks
    assert len(CORE_ITEMS) == 22


@pytest.mark.parametrize(
    ("benchmark", "problems", "names"),
    [
        ("core", CORE_ITEMS, ["core"]),
        ("chatcore", CHATCORE, ["chatcore"]),
        ("chatcore", {}, []),
        ("chatcore", CHATCORE | {"spelling_bee": 256}, ["chatcore", "chatcore_with_spelling_bee"]),
        ("chatcore", dict.fromkeys(CHATCORE, 100), ["chatcore_of_100_each"]),
        ("chatcore", CHATCORE | {"mmlu": 14_041}, ["chatcore_of_up_to_14041_each"]),
        ("chatcore", {"gsm8k": 1_319, "arc_easy": 2_376}, ["chatcore_of_gsm8k_arc_easy"]),
        ("chatcore", {"spelling_bee": 256}, ["chatcore_of_spelling_bee"]),
        ("chatcore", {"gsm8k": 7}, ["chatcore_of_gsm8k_7_each"]),
        ("chatcore", {"own": 7}, ["chatcore_of_own_7_each"]),
        ("core", {n: c for n, c in CORE_ITEMS.items() if n != "coqa"}, ["core_of_21_tasks"]),
        ("core", {n: min(c, 500) for n, c in CORE_ITEMS.items()}, ["core_of_up_to_500_each"]),
        (
            "core",
            {"toy_a": 50, "toy_b": 81, "toy_c": 9, "toy_d": 81},
            ["core_of_4_tasks_up_to_81_each"],
        ),
    ],
)
def test_only_the_mean_over_the_full_set_has_its_name(benchmark, problems, names):
    found = means(benchmark, _results(problems))
    assert list(found) == names
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)
    assert set(found.values()) <= {0.5}


def test_chatcore_leaves_out_the_tasks_beside_it():
    results = _results(CHATCORE) | _results({"spelling_bee": 256}, accuracy=1.0)
    found = means("chatcore", results)
    assert found == {"chatcore": 0.5, "chatcore_with_spelling_bee": pytest.approx(3.5 / 6)}


def test_a_mean_over_drawn_answers_says_so():
    assert list(means("chatcore", _results(CHATCORE), sampled=True)) == ["chatcore_sampled"]
    few = dict.fromkeys(CHATCORE, 5)
    assert list(means("chatcore", _results(few), sampled=True)) == ["chatcore_of_5_each_sampled"]
    assert list(means("chatcore", _results({"mmlu": 14_042}), sampled=True)) == ["chatcore_of_mmlu"]
