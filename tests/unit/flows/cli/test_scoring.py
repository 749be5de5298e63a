"""What `nanochat eval` prints, for people and for programs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flows.cli.eval_tables import scores_table
from flows.cli.scoring import evaluate
from flows.models.scored import TaskLine
from nanochat.errors import ConfigError
from nanochat.evals.intervals import share


@pytest.fixture
def printed(small_store, capsys):
    def run(*args, **options):
        evaluate(*args, store=str(small_store.root / "store"), **options)
        return capsys.readouterr()

    return run


def test_a_line_for_each_task_and_each_sum(printed):
    out, err = printed("sft", task=["mmlu", "gsm8k", "val_bpb"], by_subject=True)
    lines = [line.split() for line in out.splitlines() if line]
    assert lines[0] == ["task", "accuracy", "95", "%", "interval", "chance", "items", "seconds"]
    rows = {" ".join(line[: 2 if line[0] == "subject" else 1]): line for line in lines[1:]}
    assert list(rows)[:4] == ["mmlu", "subject 0", "subject 1", "gsm8k"]
    assert rows["gsm8k"][1:7] == ["0.0%", "0.0", "to", "56.1", "0.0%", "3"] and float(rows["gsm8k"][7]) >= 0
    assert len(rows["val_bpb"]) == 2 and float(rows["val_bpb"][1]) > 0
    assert err.startswith("problems: tasks/")
    assert re.search(r"^eval sft +done .* mmlu 0\.667", err, re.MULTILINE)


def test_several_answers_to_each_problem_have_lines_below_their_task():
    drawn = {"pass@4": share(0.5, 16), "majority": share(0.25, 16)}
    line = TaskLine(accuracy=share(0.25, 16), chance=0.0, items=16, samples=drawn)
    names, accuracies, *_ = scores_table({"gsm8k": line}, {}, groups=False).columns
    assert list(names.cells) == ["gsm8k", "  pass@4", "  majority"]
    assert list(accuracies.cells) == ["25.0%", "50.0%", "25.0%"]
    found = line.to_json()["samples"]["pass@4"]
    assert found["low"] < found["value"] == 0.5 < found["high"]


def test_two_models_side_by_side_and_an_item_on_which_they_differ(printed):
    out, _ = printed("sft", compare="pretrain", task=["mmlu"], show="flips", show_items=1)
    compared = next(line.split() for line in out.splitlines() if line.startswith("mmlu") and "+" in line)
    assert compared[0] == "mmlu" and compared[-3:] == ["0.5078", "6", "3"]
    item = out[out.index("\nmmlu, item 0 (subject 0)\n") :]
    assert "  Multiple Choice question: What about 0?\n  - one=A\n" in item
    assert "expected: A\nsft, wrong:\n  B\npretrain, right:\n  A\n" in item
    assert "item 1" not in item


def test_programs_are_given_the_numbers_unrounded_in_one_object(printed):
    out, _ = printed("sft", compare="pretrain", task=["mmlu"], show="wrong", show_items=2, as_json=True)
    found = json.loads(out)
    ours, theirs = found["models"]
    assert (ours["model"], theirs["model"]) == ("sft", "pretrain")
    mmlu, change = ours["tasks"]["mmlu"], found["comparison"]["tasks"]["mmlu"]
    assert mmlu["accuracy"] == 6 / 9 and mmlu["low"] < 6 / 9 < mmlu["high"] and mmlu["items"] == 9
    assert set(mmlu["groups"]) == {"subject 0", "subject 1"} and mmlu["seconds"] > 0
    assert change["difference"] == mmlu["accuracy"] - theirs["tasks"]["mmlu"]["accuracy"]
    assert (len(change["gained"]), len(change["lost"])) == (6, 3)
    assert [example["item"] for example in found["shown"]] == [0, 3]
    answer = found["shown"][0]["answers"]["sft"]
    assert answer["right"] == [False] and len(answer["loglikelihoods"]) == 3


def test_what_a_model_writes_acts_on_no_terminal(printed):
    out, _ = printed("sft", task=["gsm8k"], show="wrong", show_items=1)
    reply = out[out.index("sft, wrong:") :].splitlines()[1]
    assert reply.isprintable() and "\\x19" in reply


def test_flips_need_a_model_to_compare_with(printed):
    with pytest.raises(ConfigError, match="where two models differ") as caught:
        printed("sft", show="flips")
    assert "--compare REF2" in caught.value.hint


def test_a_folder_for_the_harness_holds_model_tasks_and_results(printed, tmp_path):
    folder = tmp_path / "for harness"
    _, err = printed("sft", task=["mmlu", "gsm8k", "core"], limit=5, harness=folder)
    assert "for lm-evaluation-harness: nanochat_mmlu, nanochat_core_arc_easy\n" in err
    assert "left out, since their answers are written: gsm8k\n" in err
    command = shlex.split(err.partition("ask it with: ")[2])
    assert command[:4] == ["python", "-m", "nanochat.harness", "run"]
    assert {f"pretrained={folder / 'model'},score=mean", str(folder / "tasks")} < set(command)
    assert (folder / "model/tokenizer.pkl").is_file()
    tasks = yaml.safe_load((folder / "tasks/nanochat_mmlu.yaml").read_text(encoding="utf-8"))
    rows = Path(tasks["dataset_kwargs"]["data_files"]["test"])
    assert rows == folder / "tasks/nanochat_mmlu.jsonl"
    items = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert len(items) == 5 and items[0]["choices"] == ["A", "B", "C"]
    (results,) = (folder / "results").glob("results_*.json")
    numbers = json.loads(results.read_text(encoding="utf-8"))["results"]
    out, _ = printed("sft", task=["mmlu"], limit=5, as_json=True)
    mmlu = json.loads(out)["models"][0]["tasks"]["mmlu"]
    assert numbers["nanochat_mmlu"]["acc,none"] == mmlu["accuracy"]
    (samples,) = (folder / "results").glob("samples_nanochat_mmlu_*.jsonl")
    right = [json.loads(line)["acc"] for line in samples.read_text(encoding="utf-8").splitlines()]
    assert sum(right) / 5 == mmlu["accuracy"]
    with pytest.raises(ConfigError, match="exists already and is not an empty folder"):
        printed("sft", task=["mmlu"], harness=folder)


def test_written_answers_alone_are_nothing_for_the_harness(printed, tmp_path):
    with pytest.raises(ConfigError, match="can ask none of these tasks"):
        printed("sft", task=["gsm8k"], limit=1, harness=tmp_path / "none")
    assert not (tmp_path / "none").exists()
