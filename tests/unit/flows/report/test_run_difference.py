from __future__ import annotations

import json
import random

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.report import difference_text as text
from flows.report.difference_page import write_difference
from flows.report.run_difference import difference_of
from flows.store import Store
from nanochat.evals.item_files import write_items
from nanochat.evals.item_results import ItemResult
from nanochat.evals.paired import compared
from tests.support.recorded_runs import MemoryRun, kept_run, results, trained_run

NAMES = ("a run", "another")


def _difference(first: MemoryRun, second: MemoryRun):
    return difference_of(NAMES, first.run, second.run)


def _with_items(folder, rights, *, first_item=0):
    """Return a run whose last evaluation has kept its items, and those."""
    made = trained_run()
    items = [
        ItemResult(item=first_item + i, prompt_sha256="", gold="A", predictions=("A",), right=(right,))
        for i, right in enumerate(rights)
    ]
    write_items(folder / "mmlu.parquet", items)
    files = {
        "results.json": results({"mmlu": sum(rights) / len(rights)}, problems=len(rights)),
        "items/mmlu.parquet": (folder / "mmlu.parquet").read_bytes(),
    }
    made.add("evaluate_sft", files)
    return made, items


def test_equal_runs_have_no_difference():
    found = _difference(trained_run(), trained_run())
    assert found.is_none and len(found.alike) == 4 and found.equal_scores == 6
    assert text.as_json(found)["equal"] is True


def test_a_score_that_is_not_a_number_does_not_differ_from_itself():
    runs = [trained_run(), trained_run()]
    for made in runs:
        made.add("evaluate_sft", {"results.json": results({"mmlu": 0.5}, val_bpb=float("nan"))})
    assert _difference(*runs).is_none


def test_only_the_fields_that_differ_are_there_and_each_once():
    first, second = trained_run(), trained_run()
    mixture = [{"task": "mmlu", "rows": 3}, {"task": "gsm8k", "rows": 4}]
    for made, rows, seed in ((first, 4, 1), (second, 5, 2)):
        mixture[1]["rows"] = rows
        made.add("sft", {"x": b""}, config={"epochs": 1, "mixture": [dict(each) for each in mixture]})
        for shard in range(3):
            made.add(f"download/{shard}", {"x": b""}, config={"toy": {"seed": seed}, "index": shard})
    found = _difference(first, second)
    fields = {field.field: (field.first, field.second) for field in found.fields}
    assert fields == {"sft.mixture.gsm8k.rows": ("4", "5"), "download.toy.seed": ("1", "2")}


def test_a_field_or_stage_of_one_run_alone_is_named():
    first, second = trained_run(), trained_run()
    second.add("pretrain", {"x": b""}, config={"epochs": 1})
    second.add("midtrain", {"x": b""})
    found = _difference(first, second)
    assert [(f.field, f.first, f.second) for f in found.fields] == [("pretrain.epochs", None, "1")]
    assert found.only == ((), ("midtrain",))
    assert "Only another has: midtrain." in text.remarks(found)


def test_numbers_that_differ_have_their_change():
    found = _difference(trained_run(), trained_run(better=0.1))
    numbers = {number.name: text.number_texts(number) for number in found.numbers}
    assert numbers == {"pretrain val/bpb": ("1.0000", "0.9000", "-10.0 %")}


def test_scores_on_the_same_items_are_paired(tmp_path):
    chance = random.Random(7)
    rights = [[chance.random() < 0.5 for _ in range(63)]]
    rights.append([right or chance.random() < 0.3 for right in rights[0]])
    (first, ours), (second, theirs) = (_with_items(tmp_path, each) for each in rights)
    (score,) = _difference(first, second).scores
    expected = compared({"mmlu": theirs}, {"mmlu": ours})["mmlu"].difference
    assert score.paired and score.p == expected.p < 0.05
    assert score.change == expected.estimate and score.change.value > 0
    assert text.change_texts(score)[2] == f"{expected.p:.4f}"


def test_scores_on_other_items_are_taken_as_independent(tmp_path):
    (first, _), (second, _) = (
        _with_items(tmp_path, [True, False] * 31),
        _with_items(tmp_path, [True] * 62, first_item=9),
    )
    (score,) = _difference(first, second).scores
    assert not score.paired and score.p is None
    assert score.change.value == 0.5 and score.change.low < 0.5 < score.change.high
    assert text.change_texts(score) == ("+50.0", "+36.6 to +62.1", "")


def test_a_score_that_one_run_lacks_has_no_difference():
    first, second = trained_run(), trained_run()
    second.add(
        "evaluate_sft", {"results.json": results({"mmlu": 0.375, "gsm8k": 0.5}, chatcore=0.1, val_bpb=1.25)}
    )
    (score,) = _difference(first, second).scores
    assert score.row.values == (None, 0.5) and text.change_texts(score) == ("", "", "")


def test_other_tokenizers_leave_bits_per_byte_and_say_so(tmp_path):
    first, second = trained_run(), trained_run(better=0.1)
    for made, tokenizer in ((first, b"1"), (second, b"2")):
        made.add("tokenizer", {"tokenizer": tokenizer})
        made.records["pretrain"].metrics["train/loss"] = float(tokenizer)
    found = _difference(first, second)
    assert [number.name for number in found.numbers] == ["pretrain val/bpb"]
    assert any("different tokenizers: losses are per token" in said for said in text.remarks(found))
    page = write_difference(found, tmp_path / "page.html").read_text()
    assert "Validation over" in page and "Training loss over" not in page


def test_other_validation_texts_leave_nothing_to_compare_but_losses(tmp_path):
    first, second = trained_run(), trained_run(better=0.1)
    for made, digest in ((first, "1" * 64), (second, "2" * 64)):
        text_of = {"stage": "download", "key": digest, "digest": digest, "node": "download/9"}
        made.add("tokenize/9", {"tokens.bin": b"1"}, inputs={"shard": text_of})
        made.records["pretrain"].inputs["val_tokens"] = made.input("tokenize/9")
    found = _difference(first, second)
    assert found.numbers == ()
    assert "They are validated on different texts: bits per byte are not comparable." in text.remarks(found)


def test_other_problems_or_settings_of_an_evaluation_are_said():
    first, second = trained_run(), trained_run()
    first.add("tasks", {"tasks": b"1"})
    second.add("tasks", {"tasks": b"2"})
    for made in (first, second):
        made.records["evaluate_sft"].inputs["tasks"] = made.input("tasks")
    second.records["evaluate_base"].payload["config"]["temperature"] = 1.0
    said = text.remarks(_difference(first, second))
    assert "The sft models were asked other problems: a difference of their scores is not paired." in said
    assert "The base models were asked with other settings: temperature." in said


def test_a_page_draws_both_runs_in_one_picture_and_keeps_hostile_names_as_text(tmp_path):
    evil = "<script>alert(1)</script> ]]> \u202e"
    found = difference_of((evil, "b"), trained_run().run, trained_run(better=0.1).run)
    page = write_difference(found, tmp_path / "page.html").read_text()
    assert "<script" not in page and "\u202e" not in page and "&lt;script&gt;" in page
    chart = page[page.index("Validation over") :]
    assert chart.index('class="curve first"') < chart.index('class="curve second"') < chart.index("</figure>")
    assert "mmlu, sft: A 37.50 % (26.59 to 49.85); B 47.50 % (35.67 to 59.62); chance 25.00 %." in page


@pytest.fixture
def nanochat(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    store = Store.open(str(tmp_path / "home" / "store"), cache=tmp_path / "cache")
    kept_run(store, tmp_path / "made")
    kept_run(store, tmp_path / "made", "sft.epochs=2")

    def call(*words):
        return CliRunner().invoke(app, [*words, "--store", store.url], env={"COLUMNS": "160"})

    return call


def test_the_command_says_that_equal_runs_are_equal_and_succeeds(nanochat):
    same = nanochat("diff", "toy", "toy")
    assert same.exit_code == 0
    assert same.stdout.startswith("toy and toy are the same run: ")


def test_the_command_prints_and_draws_what_differs(nanochat, tmp_path):
    words = ("diff", "toy", "toy", "-o", "sft.epochs=2")
    printed = nanochat(*words, "--html", str(tmp_path / "page.html"))
    assert printed.exit_code == 0, printed.output
    assert "sft.epochs" in printed.stdout and "pretrain" not in printed.stdout.partition("field")[2]
    assert "toy -o sft.epochs=2" in printed.stdout
    assert "sft.epochs" in (tmp_path / "page.html").read_text()
    found = json.loads(nanochat(*words, "--json").stdout)
    assert found["equal"] is False and found["fields"][0]["values"] == ["1", "2"]
