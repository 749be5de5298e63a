"""Pretraining with what the published recipe of October 2025 leaves alone."""

from __future__ import annotations

import json

import pytest

from nanochat.config import MidtrainConfig, ModelConfig, OptimizerConfig, PretrainConfig
from nanochat.errors import DataError
from nanochat.model.checkpoint import load_config
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.midtrain import midtrain
from nanochat.train.pretrain import pretrain


def test_the_2026_architecture_learns_under_its_schedule(stage_inputs, tmp_path):
    model = ModelConfig(
        architecture="2026", sequence_len=48, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32
    )
    config = PretrainConfig(
        model=model,
        optimizer=OptimizerConfig(weight_decay=0.3, grad_clip=None),
        batch_tokens=480,
        steps=25,
        warmup_steps=5,
        warmdown_ratio=0.4,
        final_lr_frac=0.1,
        eval_every=25,
        eval_tokens=480,
    )
    inputs = {name: stage_inputs / name for name in ("tokenizer", "train_tokens", "val_tokens")}
    pretrain(config, inputs, tmp_path, Runtime(threads=1))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row["train/lr_multiplier"] for row in rows]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert 0.1 < rates[-1] < 0.2
    assert rows[-1]["train/loss"] < 0.7 * rows[0]["train/loss"]


@pytest.mark.parametrize("apart", [False, True])
def test_whether_documents_see_each_other_is_decided_once_and_stays_with_the_model(
    stage_inputs, tmp_path, apart
):
    model = ModelConfig(sequence_len=48, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)
    config = PretrainConfig(model=model, batch_tokens=480, steps=1, eval_tokens=48, documents_apart=apart)
    inputs = {name: stage_inputs / name for name in ("tokenizer", "train_tokens", "val_tokens", "chat")}
    made, further = tmp_path / "base", tmp_path / "mid"
    made.mkdir(), further.mkdir()
    pretrain(config, inputs, made, Runtime(threads=1))
    midtrain(
        MidtrainConfig(batch_tokens=480),
        {**inputs, "model": made},
        further,
        Runtime(threads=1),
    )
    bos = Tokenizer.load(inputs["tokenizer"]).special("bos")
    for folder in (made, further):
        assert load_config(folder).document_token == (bos if apart else None)


def test_a_copy_of_the_validation_text_is_not_trained_on(stage_inputs, tmp_path):
    model = ModelConfig(sequence_len=48, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)
    config = PretrainConfig(model=model, batch_tokens=480, steps=1, eval_tokens=48)
    copied = stage_inputs / "train_tokens/shard_00001"
    inputs = {name: stage_inputs / name for name in ("tokenizer", "train_tokens")} | {"val_tokens": copied}
    with pytest.raises(DataError, match=r"training shard 1 .* has the very text that validates"):
        pretrain(config, inputs, tmp_path, Runtime(threads=1))
