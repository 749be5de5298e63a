from __future__ import annotations

import json
import math

import pytest

from nanochat.errors import DataError
from nanochat.evals.intervals import centered_mean, share
from nanochat.evals.problem_sets import CHATCORE
from nanochat.evals.results import (
    benchmark_rows,
    in_order,
    metric_interval,
    metric_tasks,
    metric_title,
    parse_results,
    percent,
)


def _task(accuracy, baseline, problems=8):
    return {"accuracy": accuracy, "baseline": baseline, "problems": problems}


BASE = {
    "tasks": {"arc_easy": _task(0.25, 0.25)},
    "core": {"arc_easy": _task(0.4375, 0.25, 16), "copa": _task(0.5, 0.5)},
    "metrics": {"core": 0.125, "val_bpb": 1.23456},
}
CHAT = {
    "tasks": {
        "arc_easy": _task(0.375, 0.25),
        "gsm8k": _task(0.0625, 0.0, 16),
        "spelling_bee": _task(1.0, 0.0),
        "mmlu": _task(0.5, 0.25),
    },
    "core": {},
    "metrics": {"chatcore_of_8_each": 0.390625, "core": None, "val_bpb": 1.5},
}


def test_rows_are_in_the_order_of_the_published_card_and_the_tasks_of_core_last():
    rows = benchmark_rows({"base": BASE, "sft": CHAT})
    assert [(row.label, row.chance, row.values) for row in rows] == [
        ("mmlu", 0.25, (None, 0.5)),
        ("gsm8k", 0.0, (None, 0.0625)),
        ("arc_easy", 0.25, (0.25, 0.375)),
        ("spelling_bee", 0.0, (None, 1.0)),
        ("chatcore_of_8_each", None, (None, 0.390625)),
        ("core", None, (0.125, None)),
        ("val_bpb", None, (1.23456, 1.5)),
        ("arc_easy (CORE)", 0.25, (0.4375, None)),
        ("copa (CORE)", 0.5, (0.5, None)),
    ]


def test_a_page_says_what_is_absent_and_a_terminal_leaves_it_empty():
    rows = {row.label: row for row in benchmark_rows({"base": BASE, "sft": CHAT})}
    assert rows["gsm8k"].texts() == ("0.00 %", "–", "6.25 % (1.11 to 28.33)")
    assert rows["gsm8k"].texts(brief=True) == ("0.0%", "", "6.2% ±22.1")
    assert rows["val_bpb"].texts() == ("", "1.2346", "1.5000")


def test_several_answers_to_each_problem_have_rows_of_their_own():
    drawn = {"samples": 16, "pass_at": {"1": 0.25, "16": 1.0, "2": 0.375}, "majority": 0.5}
    task = _task(0.25, 0.0, 16) | drawn
    result = {"tasks": {"gsm8k": task}, "core": {}, "metrics": {}}
    parse_results(json.dumps(result).encode(), "evaluate_sft/ab")
    rows = benchmark_rows({"base": CHAT, "sft": result})
    assert [(row.label, row.chance, row.values) for row in rows if row.label.startswith("gsm8k")] == [
        ("gsm8k", 0.0, (0.0625, 0.25)),
        ("gsm8k pass@2", None, (None, 0.375)),
        ("gsm8k pass@16", None, (None, 1.0)),
        ("gsm8k majority", None, (None, 0.5)),
    ]
    assert next(r for r in rows if "major" in r.label).intervals[1] == share(0.5, 16)


def test_a_mean_has_the_interval_of_the_tasks_that_it_is_the_mean_of():
    interval = metric_interval("core", BASE)
    expected = centered_mean([(share(0.4375, 16), 0.25), (share(0.5, 8), 0.5)])
    assert interval == expected and interval.low < interval.value == 0.125 < interval.high
    rows = {row.label: row for row in benchmark_rows({"base": BASE, "sft": CHAT})}
    limits = f"{interval.low:.4f} to {interval.high:.4f}"
    assert rows["core"].texts() == ("", f"0.1250 ({limits})", "–")
    assert rows["core"].texts(brief=True)[1:] == (f"0.1250 ±{interval.high - 0.125:.3f}", "")
    assert metric_interval("val_bpb", BASE) is None
    assert metric_interval("core", {**BASE, "metrics": {"core": 0.2}}) is None  # of other tasks


def test_chatcore_is_the_mean_of_its_own_tasks_whatever_else_was_asked():
    assert set(in_order(CHATCORE)) == set(CHATCORE) and in_order(CHATCORE)[0] == "mmlu"
    result = {
        "tasks": {name: _task(0.25, 0.25) for name in CHATCORE} | {"spelling_bee": _task(1.0, 0.0)},
        "metrics": {"chatcore": 0.0, "chatcore_with_spelling_bee": 1 / 6},
    }
    assert set(metric_tasks("chatcore", result)) == set(CHATCORE)
    assert metric_interval("chatcore", result).value == 0.0
    assert metric_interval("chatcore_with_spelling_bee", result).value == pytest.approx(1 / 6)


@pytest.mark.parametrize(("part", "page", "brief"), [(1.0, "100.00 %", "100.0%"), (None, "–", "")])
def test_the_ends_of_a_percentage(part, page, brief):
    assert (percent(part), percent(part, brief=True)) == (page, brief)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("core", "CORE"),
        ("chatcore_of_arc_easy_100_each", "ChatCORE (of arc easy 100 each)"),
        ("val_bpb", "Validation bits per byte"),
        ("corentin", "corentin"),
    ],
)
def test_a_title_says_of_which_set_a_number_is(name, title):
    assert metric_title(name) == title


def test_results_without_models_have_no_rows():
    assert benchmark_rows({}) == []


def test_results_are_read_as_they_were_written():
    assert parse_results(json.dumps(CHAT).encode(), "evaluate_sft/ab") == CHAT


def test_a_metric_too_large_for_any_calculation_is_read_as_infinite():
    content = json.dumps({**CHAT, "metrics": {}}).replace(
        '"metrics": {}', f'"metrics": {{"core": {"9" * 400}}}'
    )
    assert parse_results(content.encode(), "evaluate_sft/ab")["metrics"] == {"core": math.inf}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            json.dumps({**CHAT, "tasks": {"gsm8k": {**_task(0.5, 0.0), "problems": 10**400}}}).encode(),
            "tasks: gsm8k: problems: Input should be less than or equal to",
        ),
        (b"", "Invalid JSON"),
        (b"[" * 5000, "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (json.dumps({**CHAT, "tasks": {"gsm8k": 5}}).encode(), "tasks: gsm8k: Input should be an object"),
        (
            json.dumps({**CHAT, "tasks": {"gsm8k": _task(1.5, 0.0)}}).encode(),
            "tasks: gsm8k: accuracy: Input should be less than or equal to 1",
        ),
        (
            json.dumps({**CHAT, "metrics": {"core": "1"}}).encode(),
            "metrics: core: Input should be a valid num",
        ),
    ],
)
def test_what_is_not_results_is_named_with_its_record_and_place(content, problem):
    with pytest.raises(DataError, match=r"evaluate_sft/ab: results\.json is not the results") as caught:
        parse_results(content, "evaluate_sft/ab")
    assert problem in str(caught.value)
