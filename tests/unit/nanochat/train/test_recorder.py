"""Speeds: of all ranks together, and never against a peak that nobody knows."""

from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.tracking import MemoryTracker
from nanochat.train.loop import StepResult
from nanochat.train.recorder import Recorder, Speed
from nanochat.train.state import TrainState

TINY = ModelConfig(sequence_len=24, vocab_size=97, n_layer=1, n_head=2, n_kv_head=2, n_embd=32)
STEP = StepResult(step=1, loss=2.5, grad_norm=0.5, lr_multiplier=1.0, tokens=3000, seconds=0.5)


def test_utilisation_is_that_of_all_devices_together():
    # The published run: 48 % of eight H100 at 3.49e9 operations a token is about 1.09 M tokens a second.
    speed = Speed(flops_per_token=3_491_758_080, device="NVIDIA H100 80GB HBM3", devices=8)
    assert speed.utilisation(1_087_900) == pytest.approx(0.48, abs=1e-3)
    assert speed.metrics(1_087_900)["throughput/mfu"] == speed.utilisation(1_087_900)


@pytest.mark.parametrize("device", ["cpu", "NVIDIA Abacus 9000"])
def test_a_device_without_known_peak_gets_no_number(device):
    speed = Speed(flops_per_token=1000, device=device, devices=1)
    assert speed.metrics(6000.0) == {"throughput/tokens_per_s": 6000.0}


def test_the_summary_says_that_the_device_is_not_known():
    model = GPT(TINY)
    model.init_weights(torch.Generator().manual_seed(0))
    state = TrainState(model, ModelOptimizer(model, OptimizerConfig()), step=1, seconds=0.5)
    tracker = MemoryTracker()
    recorder = Recorder(state, tracker, 9)
    recorder(STEP, {"val/bpb": 1.25})
    summary = recorder.summary("val/bpb")
    assert (summary["mfu"], summary["tokens_per_s"], summary["val/bpb"]) == ("unknown device", 6000.0, 1.25)
    assert tracker.metrics[0][1]["throughput/tokens_per_s"] == 6000.0
    assert tracker.total_steps == 9
