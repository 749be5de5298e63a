"""The model's names, shapes, counts and rotary tables against published facts; its start and its laws."""

from __future__ import annotations

import math

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.architecture import ARCHITECTURES
from nanochat.model.attention import rotary_tables, rotate
from nanochat.model.flops import flops_per_token, parameter_count, peak_flops
from nanochat.model.gpt import GPT

TINY = ModelConfig(sequence_len=16, vocab_size=97, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)


def classic(depth: int) -> ModelConfig:
    heads = max(1, math.ceil(depth * 64 / 128))
    return ModelConfig(n_layer=depth, n_head=heads, n_kv_head=heads, n_embd=64 * depth)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (4, 36_700_160),
        (6, 60_948_480),
        (12, 185_597_952),
        (20, 560_988_160),
        (26, 1_081_999_360),
        (32, 1_879_048_192),
    ],
)
def test_parameter_counts_are_the_published_ones(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        model = GPT(classic(depth))
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert parameter_count(classic(depth)) == parameters


def test_d20_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = GPT(classic(20)).state_dict()
    assert len(state) == 122
    assert state["transformer.wte.weight"].shape == (65536, 1280)
    assert state["transformer.h.19.attn.c_proj.weight"].shape == (1280, 1280)
    assert state["transformer.h.7.mlp.c_fc.weight"].shape == (5120, 1280)
    assert state["transformer.h.7.mlp.c_proj.weight"].shape == (1280, 5120)
    assert state["lm_head.weight"].shape == (65536, 1280)


def test_flops_per_token_are_the_published_ones() -> None:
    assert flops_per_token(classic(20)) == 3_491_758_080
    assert flops_per_token(classic(32)) == pytest.approx(1.207960e10, rel=1e-6)


def test_the_most_specific_gpu_name_gives_the_peak() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA GB200") == 2500e12
    assert peak_flops("Some other device") is None


def test_rotary_tables_hold_bfloat16_numbers() -> None:
    cos, sin = rotary_tables(ARCHITECTURES["classic"], 20_480, 128, torch.device("cpu"))
    assert cos.shape == sin.shape == (1, 20_480, 1, 64)
    assert cos[0, 1, 0, :3].tolist() == pytest.approx([0.5391, 0.6484, 0.7305], abs=5e-5)
    assert torch.equal(cos, cos.bfloat16().float())


def test_rotation_is_by_minus_theta_and_keeps_relative_positions() -> None:
    angles = torch.arange(32.0)[None, :, None, None] * torch.tensor([1.0, 0.1])
    cos, sin = angles.cos(), angles.sin()
    q, k = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, -1.0, 2.0, 1.0])
    turned_q, turned_k = (rotate(x.expand(1, 32, 1, 4), cos, sin)[0, :, 0] for x in (q, k))
    theta = torch.tensor(1.0)
    assert float(turned_q[1, 0]) == pytest.approx(float(q[0] * theta.cos() + q[2] * theta.sin()))
    assert float(turned_q[9] @ turned_k[4]) == pytest.approx(float(turned_q[25] @ turned_k[20]), rel=1e-5)


def test_a_fresh_model_predicts_every_token_alike() -> None:
    model = GPT(TINY)
    model.init_weights(torch.Generator().manual_seed(1))
    tokens = torch.arange(32).view(2, 16)
    assert float(model(tokens, tokens).detach()) == pytest.approx(math.log(97), rel=1e-6)


def test_start_weights_depend_on_the_generator_alone() -> None:
    states = []
    for seed, noise in ((5, 1), (5, 2), (6, 2)):
        torch.rand(noise)
        model = GPT(TINY)
        model.init_weights(torch.Generator().manual_seed(seed))
        states.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_start_weights_have_the_spread_of_their_shape() -> None:
    model = GPT(ModelConfig(sequence_len=8, vocab_size=512, n_layer=1, n_head=2, n_kv_head=2, n_embd=128))
    model.init_weights(torch.Generator().manual_seed(1))
    stds = {name: float(weight.detach().std()) for name, weight in model.named_parameters()}
    assert stds["transformer.wte.weight"] == pytest.approx(1.0, rel=0.02)
    assert stds["transformer.h.0.attn.c_q.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert stds["transformer.h.0.mlp.c_fc.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert stds["transformer.h.0.mlp.c_proj.weight"] == stds["lm_head.weight"] == 0.0


def test_a_later_token_never_changes_an_earlier_logit(model: GPT) -> None:
    tokens = torch.arange(16)[None]
    changed = tokens.clone()
    changed[0, 9] = 90
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


def test_reductions_agree_and_leave_ignored_targets_out(model: GPT) -> None:
    tokens = torch.arange(32).view(2, 16)
    targets = tokens.roll(-1, 1)
    targets[0, :7] = -1
    with torch.no_grad():
        each = model(tokens, targets, loss_reduction="none")
        total = model(tokens, targets, loss_reduction="sum")
        mean = model(tokens, targets)
    assert each.shape == (2, 16) and not each[0, :7].any()
    assert float(each.sum()) == pytest.approx(float(total), rel=1e-5)
    assert float(total) / 25 == pytest.approx(float(mean), rel=1e-5)


def test_logits_never_pass_the_cap(model: GPT) -> None:
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
        assert float(model(torch.arange(16)[None]).abs().max()) <= 15.0
