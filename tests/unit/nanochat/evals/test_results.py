from __future__ import annotations

import json

import pytest

from nanochat.errors import DataError
from nanochat.evals.results import benchmark_rows, metric_title, parse_results, percent


def _task(accuracy, baseline):
    return {"accuracy": accuracy, "baseline": baseline}


BASE = {
    "tasks": {"arc_easy": _task(0.25, 0.25)},
    "core": {"arc_easy": _task(0.4375, 0.25)},
    "metrics": {"core": 0.0833, "val_bpb": 1.23456},
}
CHAT = {
    "tasks": {"gsm8k": _task(0.06349, 0.0), "arc_easy": _task(0.37512, 0.25)},
    "core": {},
    "metrics": {"chatcore_of_8_each": 0.25, "core": None, "val_bpb": 1.5},
}


def test_rows_are_chat_tasks_then_core_tasks_then_the_metrics_that_any_model_has():
    rows = benchmark_rows({"base": BASE, "sft": CHAT})
    assert [(row.label, row.chance, row.values) for row in rows] == [
        ("arc_easy", 0.25, (0.25, 0.37512)),
        ("gsm8k", 0.0, (None, 0.06349)),
        ("arc_easy (CORE)", 0.25, (0.4375, None)),
        ("core", None, (0.0833, None)),
        ("chatcore_of_8_each", None, (None, 0.25)),
        ("val_bpb", None, (1.23456, 1.5)),
    ]


def test_a_page_says_what_is_absent_and_a_terminal_leaves_it_empty():
    rows = {row.label: row for row in benchmark_rows({"base": BASE, "sft": CHAT})}
    assert rows["gsm8k"].texts() == ("0.00 %", "–", "6.35 %")
    assert rows["gsm8k"].texts(brief=True) == ("0.0%", "", "6.3%")
    assert rows["core"].texts() == ("", "0.0833", "–")
    assert rows["core"].texts(brief=True) == ("", "0.0833", "")


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


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Invalid JSON"),
        (b"[" * 5000, "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (json.dumps({**CHAT, "tasks": {"gsm8k": 5}}).encode(), "tasks: gsm8k: Input should be an object"),
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
