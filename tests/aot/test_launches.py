"""The ops' own wrappers at full model sizes, without memory: grids, limits, and that all arguments fit."""

from __future__ import annotations

import pytest
import torch

from kernels.linear_cross_entropy import op as linear_cross_entropy
from kernels.qk_norm_rotary import op as qk_norm_rotary
from kernels.relu_squared import op as relu_squared
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import meta

VOCAB = 65_536
MODELS = {"d20": (32 * 2048, 1280), "d32": (8 * 2048, 2048)}  # tokens of a micro-batch, width


def _grids(launches):
    return [(launch.name, launch.grid[:2]) for launch in launches]


def _loss_arguments(model):
    n_rows, width = MODELS[model]
    hidden = meta(n_rows, width, dtype=torch.bfloat16)
    return hidden, meta(VOCAB, width), meta(n_rows, dtype=torch.int64), 15.0, -1, VOCAB


@pytest.mark.parametrize(("model", "chunks"), [("d20", [6656] * 9 + [5632]), ("d32", [6144, 6144, 4096])])
def test_training_loss_launches_one_program_a_token_in_large_chunks(model, chunks):
    hidden, weight, *rest = _loss_arguments(model)
    with dry_run() as launches:
        total, d_hidden, d_weight = linear_cross_entropy.total_with_gradients(hidden, weight, *rest)
    assert _grids(launches) == [("_cross_entropy_rows_kernel", (n, 1)) for n in chunks]
    assert (total.shape, d_hidden.shape, d_weight.shape) == ((), hidden.shape, weight.shape)
    assert d_weight.dtype == torch.float32


@pytest.mark.parametrize("model", MODELS)
def test_training_loss_holds_at_most_1600_mib(model):
    hidden, weight, *_ = _loss_arguments(model)
    logits = linear_cross_entropy._chunk_rows(hidden, VOCAB) * VOCAB * 2
    d_hidden, d_weight, cast_weight = hidden.numel() * 2, weight.numel() * 4, weight.numel() * 2
    assert logits + d_hidden + d_weight + cast_weight <= 1600 * 2**20


@pytest.mark.parametrize(("model", "grid"), [("d20", (512, 1)), ("d32", (128, 2))])
def test_evaluation_loss_is_one_launch_that_fills_the_gpu(model, grid):
    with dry_run() as launches:
        losses = linear_cross_entropy.losses(*_loss_arguments(model))
    assert _grids(launches) == [("_cross_entropy_losses_kernel", grid)]
    assert losses.shape == (MODELS[model][0],)


def test_few_tokens_share_the_vocabulary_among_programs():
    hidden, weight = meta(1, 1280, dtype=torch.bfloat16), meta(VOCAB, 1280, dtype=torch.bfloat16)
    with dry_run() as launches:
        linear_cross_entropy.losses(hidden, weight, meta(1, dtype=torch.int64), 15.0, -1, VOCAB)
    assert _grids(launches) == [("_cross_entropy_losses_kernel", (1, 8))]


@pytest.mark.parametrize("model", MODELS)
def test_mlp_launches_a_program_for_each_core_or_each_tile(model):
    n_rows, width = MODELS[model]
    x, w_fc, w_proj = (
        meta(n_rows, width, dtype=torch.bfloat16),
        meta(4 * width, width),
        meta(width, 4 * width),
    )
    with dry_run() as launches:
        out, a = relu_squared.mlp(x, w_fc, w_proj)
        gradients = relu_squared.mlp_backward(out, x, w_fc, w_proj, a)
    tiles = (n_rows // 128 * (4 * width // 256), 1)
    up = ("_relu_squared_up_kernel", (132, 1))  # multiprocessors of an H100
    assert _grids(launches) == [up, ("_relu_squared_down_kernel", tiles)]
    assert [g.shape for g in gradients] == [x.shape, w_fc.shape, w_proj.shape]
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize(("model", "grids"), [("d20", (20_480, 40_960)), ("d32", (8_192, 16_384))])
def test_rotary_launches_a_program_for_each_group_of_heads(model, grids):
    n_rows, width = MODELS[model]
    x, table = meta(n_rows // 2048, 2048, width // 128, 128, dtype=torch.bfloat16), meta(1, 2048, 1, 64)
    with dry_run() as launches:
        y = qk_norm_rotary.forward(x, table, table, 1e-7)
        dx = qk_norm_rotary.backward(y, x, table, table, 1e-7)
    names = ("_qk_norm_rotary_forward_kernel", "_qk_norm_rotary_backward_kernel")
    assert _grids(launches) == [(name, (grid, 1)) for name, grid in zip(names, grids, strict=True)]
    assert (y.shape, dx.shape, dx.dtype) == (x.shape, x.shape, torch.bfloat16)
