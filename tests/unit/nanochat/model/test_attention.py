"""Rotary tables, normalisation and attention against published anchors and against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.qk_norm_rotary import rotate
from nanochat.model.architecture import ARCHITECTURES
from nanochat.model.attention import Context, attend, rms_norm, rotary_tables
from nanochat.model.gpt import GPT

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape).normal_(generator=torch.Generator().manual_seed(seed))


def test_classic_rotary_tables_hold_bfloat16_numbers() -> None:
    cos, sin = rotary_tables(ARCHITECTURES["classic"], 20_480, 128, CPU)
    assert cos.shape == sin.shape == (1, 20_480, 1, 64)
    assert cos[0, 1, 0, :3].tolist() == pytest.approx([0.5391, 0.6484, 0.7305], abs=5e-5)
    assert torch.equal(cos, cos.bfloat16().float())


def test_rotary_tables_of_2026_turn_slower_and_are_not_rounded() -> None:
    cos, sin = rotary_tables(ARCHITECTURES["2026"], 30, 64, CPU)
    angles = 29 * 100_000 ** (-2 * torch.arange(32, dtype=torch.float64) / 64)
    # Angles are float32, up to 29: an error of 29 * 2**-24 each.
    torch.testing.assert_close(cos[0, 29, 0].double(), angles.cos(), atol=4e-6, rtol=0)
    torch.testing.assert_close(sin[0, 29, 0].double(), angles.sin(), atol=4e-6, rtol=0)


def test_rotation_is_by_minus_theta_and_keeps_relative_positions() -> None:
    angles = torch.arange(32.0)[None, :, None, None] * torch.tensor([1.0, 0.1])
    cos, sin = angles.cos(), angles.sin()
    q, k = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, -1.0, 2.0, 1.0])
    turned_q, turned_k = (rotate(x.expand(1, 32, 1, 4), cos, sin)[0, :, 0] for x in (q, k))
    theta = torch.tensor(1.0)
    assert float(turned_q[1, 0]) == pytest.approx(float(q[0] * theta.cos() + q[2] * theta.sin()))
    assert float(turned_q[9] @ turned_k[4]) == pytest.approx(float(turned_q[25] @ turned_k[20]), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_eps_of_the_norm_is_the_pinned_one_in_every_type(dtype: torch.dtype) -> None:
    x = torch.full((1, 7), 2.0**-12, dtype=dtype)  # small enough for eps to count
    expected = 2.0**-12 / (2.0**-24 + 1.1920929e-07) ** 0.5
    assert float(rms_norm(x)[0, 3]) == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 2**-8)


def written_out(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Attention by its definition, one query and head at a time."""
    out = torch.zeros_like(q)
    for row in range(q.size(0)):
        for i in range(q.size(1)):
            seen = slice(0 if window is None else max(0, i - window), i + 1)
            for head in range(q.size(2)):
                group = head // (q.size(2) // k.size(2))
                scores = k[row, seen, group] @ q[row, i, head] / q.size(3) ** 0.5
                out[row, i, head] = scores.softmax(0) @ v[row, seen, group]
    return out


@pytest.mark.parametrize("n_kv_head", [6, 3, 1])
@pytest.mark.parametrize("window", [None, 0, 4, 12, 100])
def test_a_query_sees_itself_and_a_window_before_it(window: int | None, n_kv_head: int) -> None:
    q, k, v = normal(2, 13, 6, 10), normal(2, 13, n_kv_head, 10, seed=1), normal(2, 13, n_kv_head, 10, seed=2)
    # float32 sums of a dozen terms in another order
    torch.testing.assert_close(
        attend(q, k, v, window=window), written_out(q, k, v, window), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("n_kv_head", [4, 2])
def test_one_query_sees_all_keys_with_any_number_of_threads(n_kv_head: int) -> None:
    q, k, v = (
        normal(1, 1, 4, 64),
        normal(1, 700, n_kv_head, 64, seed=1),
        normal(1, 700, n_kv_head, 64, seed=2),
    )
    at_its_place = torch.cat((normal(1, 699, 4, 64), q), dim=1)
    used, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(attend(q, k, v))
    finally:
        torch.set_num_threads(used)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], written_out(at_its_place, k, v, None)[:, -1:])


def layer_output(model: GPT, x: Tensor, *, norm_first: bool) -> Tensor:
    """The first layer's attention by its definition, without value embedding."""
    attention, scale = model.transformer.h[0].attn, {"classic": 1.0, "2026": 1.2}[model.config.architecture]
    cos, sin = model.cos[:, : x.size(1)], model.sin[:, : x.size(1)]
    q, k, v = (
        map_(x).unflatten(-1, (-1, attention.head_dim))
        for map_ in (attention.c_q, attention.c_k, attention.c_v)
    )
    if norm_first:
        q, k = rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin)
    else:
        q, k = rms_norm(rotate(q, cos, sin)), rms_norm(rotate(k, cos, sin))
    out: Tensor = attention.c_proj(written_out(scale * q, scale * k, v, None).flatten(2))
    return out


@torch.no_grad()
def test_queries_and_keys_are_normed_after_the_rotation_and_scaled(model: GPT) -> None:
    x = normal(1, 15, 32)
    found = model.transformer.h[0].attn(x, Context(model.cos[:, :15], model.sin[:, :15]))
    torch.testing.assert_close(found, layer_output(model, x, norm_first=False), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rounded_tables_make_the_order_of_norm_and_rotation_visible(classic: GPT) -> None:
    x = normal(1, 15, 32)
    found = classic.transformer.h[0].attn(x, Context(classic.cos[:, :15], classic.sin[:, :15]))
    assert float((found - layer_output(classic, x, norm_first=True)).abs().max()) > 1e-4
