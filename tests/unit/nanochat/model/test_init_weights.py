"""The weights that training starts from."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT

WIDE = {"sequence_len": 8, "vocab_size": 512, "n_layer": 3, "n_head": 2, "n_kv_head": 2, "n_embd": 128}


def fresh(architecture: str, seed: int = 1) -> GPT:
    model = GPT(ModelConfig.model_validate({"architecture": architecture, **WIDE}))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def measured(model: GPT, measure: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    return {name: float(measure(weight.detach())) for name, weight in model.named_parameters()}


def _spread(weight: torch.Tensor) -> torch.Tensor:
    return weight.std(correction=0)


@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_start_weights_depend_on_the_generator_alone(architecture: str) -> None:
    states = []
    for seed, noise in ((5, 1), (5, 2), (6, 2)):
        torch.rand(noise)
        states.append(torch.cat([w.detach().flatten() for w in fresh(architecture, seed).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_fresh_classic_model_predicts_every_token_alike() -> None:
    tokens = torch.arange(16).view(2, 8)
    assert float(fresh("classic")(tokens, tokens).detach()) == pytest.approx(math.log(512), rel=1e-6)


def test_classic_weights_have_the_spread_of_their_shape() -> None:
    stds = measured(fresh("classic"), _spread)
    assert stds["transformer.wte.weight"] == pytest.approx(1.0, rel=0.02)
    assert stds["transformer.h.0.attn.c_q.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert stds["transformer.h.0.mlp.c_fc.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert stds["transformer.h.0.mlp.c_proj.weight"] == stds["lm_head.weight"] == 0.0


def test_weights_of_2026_have_the_published_spreads_and_bounds() -> None:
    model = fresh("2026")
    stds, tops = measured(model, _spread), measured(model, lambda w: w.abs().max())
    assert stds["transformer.wte.weight"] == pytest.approx(0.8, rel=0.02)
    assert stds["lm_head.weight"] == pytest.approx(0.001, rel=0.02)
    for name, factor in (("attn.c_q", 1), ("attn.c_k", 1), ("attn.c_v", 1), ("mlp.c_fc", 0.4)):
        assert stds[f"transformer.h.1.{name}.weight"] == pytest.approx(factor * 128**-0.5, rel=0.02)
        assert tops[f"transformer.h.1.{name}.weight"] <= factor * (3 / 128) ** 0.5
    assert stds["value_embeds.2.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert tops["transformer.h.0.attn.c_proj.weight"] == tops["transformer.h.2.mlp.c_proj.weight"] == 0
    for gate in ("smear_gate.weight", "transformer.h.0.attn.ve_gate.weight"):
        assert 0.01 < tops[gate] <= 0.02


def test_scalars_of_2026_start_as_published() -> None:
    start = {name: weight.detach().tolist() for name, weight in fresh("2026").named_parameters()}
    assert start["resid_lambdas"] == pytest.approx([1.15, 1.10, 1.05])
    assert start["x0_lambdas"] == pytest.approx([0.20, 0.125, 0.05])
    assert start["smear_lambda"] == [0.0]
    assert start["backout_lambda"] == pytest.approx([0.2])
