from __future__ import annotations

import json
import math
import threading
from unittest import mock

import polars as pl
import pytest

from nanochat.config import EvaluateConfig, TokenizeConfig
from nanochat.data.text.tokenize import tokenize_shard
from nanochat.errors import ConfigError, Interrupted
from nanochat.evals import shared_work
from nanochat.evals.evaluate import evaluate_base, evaluate_chat
from nanochat.model.checkpoint import save_model
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import NullTracker, Runtime
from tests.support.calculating import SHOWN, calculating_model
from tests.support.ranks import on_ranks

pytestmark = pytest.mark.xdist_group("ranks")


class _Recorder(NullTracker):
    def __init__(self):
        self.seen = []

    def log(self, metrics, *, step, total_steps):
        self.seen.append((*metrics, step, total_steps))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, model, tokenizer):
    root = tmp_path_factory.mktemp("inputs")
    for name in ("tokenizer", "model", "val_tokens", "text", "tasks"):
        (root / name).mkdir()
    tokenizer.save(root / "tokenizer")
    save_model(root / "model", model)
    pl.DataFrame({"text": ["the river runs", "down to the sea"] * 20}).write_parquet(
        root / "text/text.parquet"
    )
    folders = {"shard": root / "text", "tokenizer": root / "tokenizer"}
    tokenize_shard(TokenizeConfig(), folders, root / "val_tokens", Runtime())
    _write_tasks(root / "tasks")
    return {name: root / name for name in ("tokenizer", "model", "val_tokens", "tasks")}


def _write_tasks(root):
    arc = [
        {
            "id": str(i),
            "question": f"Which is number {i}?",
            "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]},
            "answerKey": "ABC"[i % 3],
        }
        for i in range(12)
    ]
    _write(root / "tasks/arc/ARC-Easy/test.jsonl", arc)
    maths = [{"question": f"{i}+1?", "answer": f"<<{i}+1={i + 1}>> #### {i + 1}"} for i in range(6)]
    _write(root / "tasks/gsm8k/test.jsonl", maths)
    items = [{"query": f"so {i}", "choices": ["a", "the"], "gold": i % 2} for i in range(8)]
    _write(root / "core/eval_data/x.jsonl", items)
    (root / "core/core.yaml").write_text(
        "icl_tasks:\n- label: arc_easy\n  dataset_uri: x.jsonl\n"
        "  num_fewshot: [1]\n  icl_task_type: multiple_choice\n"
    )
    (root / "core/eval_meta_data.csv").write_text("Eval Task,Random baseline\narc_easy,50\n")
    _write(root / "conversations/talk.jsonl", [])


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


CONFIG = EvaluateConfig(
    chat_tasks=("arc_easy", "gsm8k"),
    max_problems=9,
    core_max_problems=6,
    max_new_tokens=8,
    bpb_tokens=512,
    prompts=("the river",),
)


def test_base_results_hold_all_tasks_and_means(inputs, tmp_path):
    metrics = evaluate_base(CONFIG, inputs, tmp_path, Runtime(threads=1))
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["model"] == "base"
    assert {name: task["problems"] for name, task in results["tasks"].items()} == {"arc_easy": 9, "gsm8k": 6}
    easy, maths, core = (*results["tasks"].values(), results["core"]["arc_easy"])
    assert easy["baseline"] == 0.33
    assert easy["centered"] == pytest.approx((easy["accuracy"] - 0.33) / 0.67)
    assert (core["problems"], core["baseline"]) == (6, 0.5)
    assert (easy["of"], maths["of"], core["of"]) == (12, 6, 8)
    found = results["metrics"]
    assert found.keys() == {"core_of_arc_easy_6_each", "chatcore_of_arc_easy_gsm8k_up_to_9_each", "val_bpb"}
    assert found["core_of_arc_easy_6_each"] == core["centered"] == metrics["eval/core_of_arc_easy_6_each"]
    mean = (easy["centered"] + maths["centered"]) / 2
    assert found["chatcore_of_arc_easy_gsm8k_up_to_9_each"] == pytest.approx(mean)
    assert math.isfinite(found["val_bpb"])
    assert metrics["eval/arc_easy"] == easy["accuracy"]
    assert metrics["eval/core_arc_easy"] == core["accuracy"]


def test_chat_results_have_no_core_and_other_samples(inputs, tmp_path):
    for name, stage in (("base", evaluate_base), ("chat", evaluate_chat)):
        (tmp_path / name).mkdir()
        stage(CONFIG, inputs, tmp_path / name, Runtime(threads=1))
    results = json.loads((tmp_path / "chat/results.json").read_text(encoding="utf-8"))
    assert results["core"] == {}
    assert not any(name.startswith("core") for name in results["metrics"])
    samples = [
        json.loads((tmp_path / n / "samples.jsonl").read_text(encoding="utf-8")) for n in ("base", "chat")
    ]
    assert [sample["prompt"] for sample in samples] == ["the river"] * 2
    assert samples[0]["text"] != samples[1]["text"]


@pytest.mark.parametrize("evaluate", [evaluate_base, evaluate_chat])
def test_samples_use_the_calculator_and_read_as_chat_does(evaluate, inputs, model, tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", calculating_model(tokenizer, model.config))
    config = CONFIG.model_copy(update={"chat_tasks": (), "core": False, "max_new_tokens": 12})
    evaluate(config, {**inputs, "model": tmp_path / "model"}, tmp_path, Runtime(threads=1))
    assert json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))["text"] == SHOWN


SAMPLED = CONFIG.model_copy(update={"num_samples": 3, "temperature": 0.8})


def _as_rank(inputs, folder):
    """Evaluate as one of the ranks that are here; the others wait until each has begun a portion."""
    world, began = RankGroup.current(), []
    take = shared_work._Desk.take

    def take_one_each(desk, number):
        taken = take(desk, number)
        if taken and not began:
            began.append(number)
            world.gather(0.0)
        return taken

    with mock.patch.object(shared_work._Desk, "take", take_one_each):
        return evaluate_base(SAMPLED, inputs, folder, Runtime(threads=1, scratch=folder))


def test_any_number_of_ranks_gives_the_same_bytes(inputs, tmp_path):
    for size in (1, 2, 3):
        (tmp_path / str(size)).mkdir()
    alone = evaluate_base(SAMPLED, inputs, tmp_path / "1", Runtime(threads=1))
    for size in (2, 3):
        assert on_ranks(size, _as_rank, inputs, tmp_path / str(size)) == [alone, *[{}] * (size - 1)]
    written = [
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in sorted(tmp_path.iterdir())
    ]
    tasks = {"items/arc_easy.parquet", "items/gsm8k.parquet", "items/core_arc_easy.parquet"}
    assert set(written[0]) == {"results.json", "samples.jsonl", *tasks}
    assert written[0] == written[1] == written[2]


def test_each_item_says_what_was_asked_and_answered(inputs, tmp_path):
    evaluate_base(CONFIG, inputs, tmp_path, Runtime(threads=1))
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    easy, maths, core = (
        pl.read_parquet(tmp_path / f"items/{name}.parquet") for name in ("arc_easy", "gsm8k", "core_arc_easy")
    )
    assert easy.columns == [
        *("item", "prompt_sha256", "gold", "predictions", "right", "loglikelihoods", "replies", "group"),
    ]
    assert easy["gold"].to_list() == ["ABC"[item % 3] for item in easy["item"]]
    assert maths["gold"].to_list() == [str(item + 1) for item in maths["item"]]
    assert [len(replies) for replies in maths["replies"]] == [1] * 6
    assert core["gold"].to_list() == [str(item % 2) for item in core["item"]]
    for items in (easy, maths, core):
        assert items["item"].is_sorted() and items["prompt_sha256"].n_unique() == len(items)
    for row in easy.rows(named=True):
        assert row["predictions"] == ["ABC"[row["loglikelihoods"].index(max(row["loglikelihoods"]))]]
        assert row["right"] == [row["predictions"] == [row["gold"]]]
    assert results["tasks"]["arc_easy"]["accuracy"] == easy["right"].list.first().mean()
    assert results["core"]["arc_easy"]["accuracy"] == core["right"].list.first().mean()


def test_several_samples_give_pass_at_k(inputs, tmp_path):
    drawn = CONFIG.model_copy(update={"num_samples": 3, "temperature": 1.0, "chat_tasks": ("gsm8k",)})
    metrics = evaluate_chat(drawn, inputs, tmp_path, Runtime(threads=1))
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    task = results["tasks"]["gsm8k"]
    assert task["samples"] == 3 and task["pass_at"].keys() == {"1", "2", "3"}
    assert metrics["eval/gsm8k_any"] == metrics["eval/gsm8k_pass_at_3"] == task["any"] == task["pass_at"]["3"]
    assert "eval/chatcore_of_gsm8k_6_each_sampled" in metrics and "eval/gsm8k_majority" in metrics
    written = results["protocol"]["generation"]
    assert written == {"num_samples": 3, "temperature": 1.0, "top_k": 50, "seed": 42, "max_new_tokens": 8}
    assert results["protocol"]["subset"]["chat"]["max_problems"] == 9


def test_progress_is_reported_task_by_task(inputs, tmp_path):
    recorder = _Recorder()
    evaluate_base(CONFIG, inputs, tmp_path, Runtime(threads=1, tracker=recorder))
    assert ("eval/arc_easy", 9, 9) in recorder.seen
    assert ("eval/gsm8k", 6, 6) in recorder.seen
    assert ("eval/core_arc_easy", 6, 6) in recorder.seen


def test_a_stop_is_obeyed_between_problems(inputs, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="stopped after 0 of 5 portions of the evaluation; nothing is kept"):
        evaluate_base(CONFIG, inputs, tmp_path, Runtime(threads=1, stop=stop))
    assert list(tmp_path.iterdir()) == []


def test_conversations_cannot_be_scored(inputs, tmp_path):
    _write(
        inputs["tasks"] / "conversations/test.jsonl",
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
    )
    config = CONFIG.model_copy(update={"chat_tasks": ("test",)})
    with pytest.raises(ConfigError, match="without an answer to score"):
        evaluate_chat(config, inputs, tmp_path, Runtime(threads=1))
