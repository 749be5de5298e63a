"""Training gives the same bytes with any number of threads, and no process forgets the mode of MKL."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT, IGNORED
from nanochat.model.reproducible import MODE, VARIABLE, cpu_threads
from nanochat.optim.muon import multiplies_bfloat16
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.schedules import rising_momentum
from nanochat.train.loop import TrainingPlan, training_steps
from nanochat.train.state import TrainState

ROOT = Path(__file__).parents[4]
THREADS = (1, 2, 3, 4)
PRECISIONS = [
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(
            not multiplies_bfloat16("cpu"), reason="bfloat16 without instructions for it is slow"
        ),
    ),
]
# Prints the mode that MKL is in, as MKL itself returns it.
MODE_IN_FORCE = """
import ctypes, torch
from pathlib import Path
library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
print(hex(library.mkl_serv_cbwr_get(-1) & 0xFFFFFFFF))
"""
MAKE_A_MODEL = """
from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT
from nanochat.model.reproducible import cpu_threads
GPT(ModelConfig(sequence_len=8, vocab_size=16, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
"""
TRAIN = "with cpu_threads(2):\n    pass\n"
needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available() or sys.platform != "linux",
    reason="PyTorch has no MKL of its own here",
)


def in_a_fresh_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that was given no mode of MKL but this one."""
    given = {key: value for key, value in os.environ.items() if key != VARIABLE} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=given, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("tokens", "inner", "outer"), [(2048, 128, 512), (2000, 512, 128), (200, 96, 768)])
def test_products_are_the_same_with_any_number_of_threads(precision, tokens, inner, outer):
    draw = torch.Generator().manual_seed(0)
    shapes = ((tokens, inner), (outer, inner), (tokens, outer))
    x, weight, y = (torch.randn(*s, generator=draw).to(getattr(torch, precision)) for s in shapes)
    expected = None
    for threads in THREADS:
        with cpu_threads(threads):
            found = (x @ weight.t(), y @ weight, y.t() @ x)  # forward, gradients of x and of the weight
        expected = expected or found
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), threads


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_training_is_the_same_with_any_number_of_threads(architecture, precision):
    assert len({trained(architecture, precision, threads) for threads in THREADS}) == 1


def trained(architecture: str, precision: str, threads: int) -> str:
    """Return a digest of a small model after some steps, and of what they measured."""
    windows = {"window_pattern": "SL", "document_token": 0} if architecture == "2026" else {}
    shape = {"sequence_len": 256, "vocab_size": 512, "n_layer": 2, "n_head": 4, "n_kv_head": 4, "n_embd": 128}
    model = GPT(ModelConfig(architecture=architecture, **shape, **windows))
    model.init_weights(torch.Generator().manual_seed(1))
    model.precision = getattr(torch, precision)
    plan = TrainingPlan(
        steps=3, batch_rows=12, longest=256, batch=lambda step, rows: tuple(x[rows] for x in batch(step)),
        lr_multiplier=lambda _: 1.0, momentum=rising_momentum,
    )  # fmt: skip
    state = TrainState(model, ModelOptimizer(model, OptimizerConfig(grad_clip=1.0)))
    with cpu_threads(threads):
        measured = [(result.loss, result.grad_norm) for result in training_steps(state, plan)]
    digest = hashlib.sha256(json.dumps(measured).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of which some end early, in two passes."""
    draw = np.random.default_rng([7, step])
    text = draw.integers(0, 512, (12, 257))
    targets = text[:, 1:].copy()
    targets[9:, 100:] = IGNORED
    return text[:, :-1], targets


@needs_mkl
def test_whoever_makes_a_model_computes_in_the_strict_mode():
    done = in_a_fresh_process(MAKE_A_MODEL + TRAIN + MODE_IN_FORCE)
    assert done.stdout.strip() == "0x10002", done.stderr
    assert not done.stderr


@needs_mkl
def test_a_mode_that_does_not_hold_is_replaced_with_a_warning():
    done = in_a_fresh_process(MAKE_A_MODEL + TRAIN + MODE_IN_FORCE, MKL_CBWR="COMPATIBLE")
    assert done.stdout.strip() == "0x10002", done.stderr
    assert "MKL_CBWR is COMPATIBLE" in done.stderr


@needs_mkl
def test_a_strict_mode_of_the_users_stays():
    def mode(code: str) -> str:
        return in_a_fresh_process(code + MODE_IN_FORCE, MKL_CBWR="AVX2,STRICT").stdout.strip()

    alone = mode("")
    assert int(alone, 16) & 0x10000  # which branch goes with it depends on the processor
    assert mode(MAKE_A_MODEL + TRAIN) == alone


@needs_mkl
def test_a_process_in_which_it_is_too_late_does_not_train_and_says_the_way_out():
    early = "import torch\ntorch.ones(64, 64) @ torch.ones(64, 64)\n"
    refused = in_a_fresh_process(early + MAKE_A_MODEL + TRAIN)
    assert "ConfigError: MKL was used in this process" in refused.stderr
    shown = in_a_fresh_process(early + MAKE_A_MODEL + TRAIN + MODE_IN_FORCE, **{VARIABLE: MODE})
    assert shown.stdout.strip() == "0x10002", shown.stderr
