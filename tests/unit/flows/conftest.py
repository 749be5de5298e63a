"""A store with two tiny models of one recipe, as a pipeline leaves it, but made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from flows.stages import STAGES
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from nanochat.config import EvaluateConfig, ModelConfig, TokenizeConfig
from nanochat.data.text.tokenize import tokenize_shard
from nanochat.evals.evaluate import evaluate_chat
from nanochat.model.checkpoint import save_model
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

LETTERS = "ABC"
CONFIG = EvaluateConfig(
    chat_tasks=("arc_easy", "mmlu", "gsm8k"), core_max_problems=6, max_new_tokens=4, bpb_tokens=64
)


class SmallStore:
    """The store, and the folder in which its artifacts were made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store.open(str(root / "store"), cache=root / "cache")

    def commit(self, stage: str, config: object = None, **inputs: Record) -> Record:
        """Commit the folder of that name as the artifact of a stage."""
        lines = {
            name: {"stage": r.stage, "key": r.key, "digest": r.digest, "node": r.node}
            for name, r in inputs.items()
        }
        payload = {"stage": stage, "config": config, "inputs": {n: r.digest for n, r in inputs.items()}}
        if stage in STAGES:
            payload["version"] = STAGES[stage].version
        return self.store.commit(
            stage=stage,
            node=stage,
            key=fingerprint(payload),
            payload=payload,
            folder=self.root / stage,
            inputs=lines,
        )


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> SmallStore:
    root = tmp_path_factory.mktemp("small")
    for name in ("download", "tokenizer", "tokenize", "tasks", "pretrain", "sft", "evaluate_sft"):
        (root / name).mkdir()
    pl.DataFrame({"text": ["the river runs", "down to the sea"] * 20}).write_parquet(
        root / "download/text.parquet"
    )
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    tokenizer.save(root / "tokenizer")
    folders = {"shard": root / "download", "tokenizer": root / "tokenizer"}
    tokenize_shard(TokenizeConfig(), folders, root / "tokenize", Runtime())
    _write_tasks(root / "tasks")
    for seed, stage in enumerate(("pretrain", "sft")):
        save_model(root / stage, _model(tokenizer.vocab_size, seed))
    inputs = {name: root / name for name in ("tokenizer", "tasks")}
    inputs |= {"model": root / "sft", "val_tokens": root / "tokenize"}
    evaluate_chat(CONFIG, inputs, root / "evaluate_sft", Runtime(threads=1))
    made = SmallStore(root)
    words, text, tasks = made.commit("tokenizer"), made.commit("download"), made.commit("tasks")
    tokens = made.commit("tokenize", shard=text, tokenizer=words)
    base = made.commit("pretrain", tokenizer=words, val_tokens=tokens)
    chat = made.commit("sft", tokenizer=words, model=base)
    asked = {"tokenizer": words, "tasks": tasks, "val_tokens": tokens}
    made.commit("evaluate_sft", CONFIG.identity(), model=chat, **asked)
    return made


def _model(vocab_size: int, seed: int) -> GPT:
    model = GPT(
        ModelConfig(sequence_len=64, vocab_size=vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return model


def _write_tasks(root: Path) -> None:
    choices = ["one", "two", "three"]
    arc = [
        {
            "id": str(i),
            "question": f"Which is number {i}?",
            "choices": {"text": choices, "label": list(LETTERS)},
            "answerKey": LETTERS[i % 3],
        }
        for i in range(12)
    ]
    _write(root / "tasks/arc/ARC-Easy/test.jsonl", arc)
    mmlu = [
        {
            "question": f"What about {i}?",
            "choices": choices,
            "answer": i * i % 3,
            "subject": f"subject {i % 2}",
        }
        for i in range(9)
    ]
    _write(root / "tasks/mmlu/test.jsonl", mmlu)
    maths = [{"question": f"{i}+1?", "answer": f"<<{i}+1={i + 1}>> #### {i + 1}"} for i in range(3)]
    _write(root / "tasks/gsm8k/test.jsonl", maths)
    items = [{"query": f"so {i}", "choices": ["a", "the"], "gold": i % 2} for i in range(8)]
    _write(root / "core/eval_data/x.jsonl", items)
    (root / "core/core.yaml").write_text(
        "icl_tasks:\n- label: arc_easy\n  dataset_uri: x.jsonl\n"
        "  num_fewshot: [1]\n  icl_task_type: multiple_choice\n"
    )
    (root / "core/eval_meta_data.csv").write_text("Eval Task,Random baseline\narc_easy,50\n")


def _write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
