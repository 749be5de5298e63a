"""Attention's wrappers at full model sizes, without memory: which kernels run, over how many programs."""

from __future__ import annotations

import pytest
import torch

from kernels.attention import op as attention
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import meta

MODELS = {"d20": (32, 10), "d32": (8, 16)}  # rows of 2,048 tokens in a micro-batch, heads of dimension 128


@pytest.mark.parametrize(
    ("model", "window", "documents", "shared"),
    [("d20", None, False, 1), ("d32", None, False, 1), ("d20", 512, False, 1), ("d32", None, True, 2)],
)
def test_three_launches_cover_each_block_head_and_row(model, window, documents, shared):
    rows, heads = MODELS[model]
    q = meta(rows, 2048, heads, 128, dtype=torch.bfloat16)
    k, v = (meta(rows, 2048, heads // shared, 128, dtype=torch.bfloat16) for _ in range(2))
    lo = meta(rows, 2048, dtype=torch.int32) if documents else None
    with dry_run() as launches:
        out, lse = attention.forward(q, k, v, lo, window, 0.1)
        grads = attention.backward(out, q, k, v, out, lse, lo, window, 0.1)
    keys = 32 if window or documents else 16  # of 64 or 128
    assert [(launch.name, launch.grid) for launch in launches] == [
        ("_attention_forward_kernel", (16, heads, rows)),
        ("_attention_dq_kernel", (16, heads, rows)),
        ("_attention_dkv_kernel", (keys, heads // shared, rows)),
    ]
    assert (out.shape, lse.shape, lse.dtype) == (q.shape, (rows, heads, 2048), torch.float32)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


def test_slices_of_one_projection_are_launched_as_they_lie():
    fused = meta(32, 2048, 30, 128, dtype=torch.bfloat16)
    q, k, v = fused.split(10, dim=2)
    with dry_run() as launches:
        attention.forward(q, k, v, None, None, 0.1)
    assert len(launches) == 1


def test_strides_that_tma_cannot_take_are_named():
    q = meta(2, 64, 2, 129, dtype=torch.bfloat16)[..., :128]
    with dry_run(), pytest.raises(ValueError, match=r"q has strides .* multiples of 16 bytes"):
        attention.forward(q, q, q, None, None, 0.1)
