"""The model's names and shapes against published facts, its numbers against their formulas; its laws."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nanochat.config import ModelConfig
from nanochat.model.attention import Context, rms_norm
from nanochat.model.gpt import GPT, Classic, July2026


def test_classic_d20_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = GPT(ModelConfig()).state_dict()
    blocks = {
        f"transformer.h.{layer}.{name}.weight": shape
        for layer in range(20)
        for name, shape in {
            **dict.fromkeys(("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj"), (1280, 1280)),
            "mlp.c_fc": (5120, 1280),
            "mlp.c_proj": (1280, 5120),
        }.items()
    }
    ends = dict.fromkeys(("transformer.wte.weight", "lm_head.weight"), (65536, 1280))
    assert len(state) == 122
    assert {name: tuple(weight.shape) for name, weight in state.items()} == blocks | ends


def test_d20_of_2026_has_the_published_tensors() -> None:
    with torch.device("meta"):
        model = GPT(ModelConfig(architecture="2026", vocab_size=32_768))
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert len(shapes) == 147
    added = {
        "resid_lambdas": (20,),
        "x0_lambdas": (20,),
        "smear_lambda": (1,),
        "backout_lambda": (1,),
        "smear_gate.weight": (1, 24),
        **{f"value_embeds.{layer}.weight": (32_768, 1280) for layer in range(1, 20, 2)},
        **{f"transformer.h.{layer}.attn.ve_gate.weight": (10, 12) for layer in range(1, 20, 2)},
    }
    with torch.device("meta"):
        base = GPT(ModelConfig(vocab_size=32_768)).state_dict()
    assert shapes == {name: tuple(weight.shape) for name, weight in base.items()} | added


def test_every_parameter_is_in_one_group_of_its_kind(model: GPT) -> None:
    groups = model.parameter_groups()
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert groups["lm_head"].keys() == {"lm_head.weight"} and groups["wte"].keys() == {
        "transformer.wte.weight"
    }
    assert all(name.startswith("transformer.h.") for name in groups["matrices"])


def test_the_scalars_and_gates_of_2026_have_kinds_of_their_own(july: GPT, classic: GPT) -> None:
    groups = july.parameter_groups()
    assert groups["scalars"].keys() == {"smear_gate.weight", "smear_lambda", "backout_lambda"}
    assert groups["value_embeds"].keys() == {"value_embeds.0.weight", "value_embeds.2.weight"}
    assert groups["resid_lambdas"].keys() == {"resid_lambdas"} and groups["x0_lambdas"].keys() == {
        "x0_lambdas"
    }
    assert "transformer.h.2.attn.ve_gate.weight" in groups["matrices"]
    assert classic.parameter_groups().keys() == {"wte", "matrices", "lm_head"}


def test_a_copy_is_of_the_same_architecture(model: GPT) -> None:
    copied = copy.deepcopy(model)
    assert type(copied) is type(model) in (Classic, July2026)
    tokens = torch.arange(11)[None]
    with torch.no_grad():
        assert torch.equal(copied(tokens), model(tokens))


def smear(model: GPT, e: Tensor) -> Tensor:
    out = e.clone()
    for t in range(1, len(e)):
        out[t] = e[t] + model.smear_lambda * torch.sigmoid(model.smear_gate.weight @ e[t, :24]) * e[t - 1]
    return out


def value_embedding(model: GPT, layer: int, x: Tensor, tokens: Tensor) -> Tensor:
    """What is added to the values (T, K * D) of normed block inputs x."""
    gate = 3 * torch.sigmoid(x[:, :12] @ model.transformer.h[layer].attn.ve_gate.weight.T)  # (T, K)
    table = model.get_parameter(f"value_embeds.{layer}.weight")
    return table[tokens] * gate.repeat_interleave(8, dim=1)


class WithValues(torch.nn.Module):
    """Values that come out with something added."""

    def __init__(self, c_v: torch.nn.Module, added: Tensor) -> None:
        super().__init__()
        self.c_v, self.added = c_v, added

    def forward(self, x: Tensor) -> Tensor:
        return self.c_v(x) + self.added


@torch.no_grad()
def test_the_stream_of_2026_follows_its_formula(july: GPT) -> None:
    """Attention has its own test; here it is taken as it is, with the added values put in by hand."""
    tokens = torch.randint(0, 97, (13,), generator=torch.Generator().manual_seed(3))
    context = Context(july.cos[:, :13], july.sin[:, :13])
    start = x = smear(july, rms_norm(july.transformer.wte.weight[tokens]))
    middle = x
    for layer, original in enumerate(july.transformer.h):
        x = july.resid_lambdas[layer] * x + july.x0_lambdas[layer] * start
        block = copy.deepcopy(original)
        if layer in (0, 2):
            added = value_embedding(july, layer, rms_norm(x), tokens)
            block.attn.c_v = WithValues(block.attn.c_v, added)
        x = x + block.attn(rms_norm(x)[None], context)[0]
        x = x + block.mlp(rms_norm(x))
        middle = x if layer == 1 else middle
    expected = july.logits(rms_norm(x - july.backout_lambda * middle))
    torch.testing.assert_close(july(tokens[None])[0], expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_the_classic_stream_follows_its_formula(classic: GPT) -> None:
    tokens = torch.randint(0, 97, (13,), generator=torch.Generator().manual_seed(3))
    context = Context(classic.cos[:, :13], classic.sin[:, :13])
    x = rms_norm(classic.transformer.wte.weight[tokens])
    for block in classic.transformer.h:
        x = x + block.attn(rms_norm(x)[None], context)[0]
        x = x + block.mlp(rms_norm(x))
    torch.testing.assert_close(classic(tokens[None])[0], classic.logits(rms_norm(x)), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_the_mlp_squares_what_the_relu_lets_through(model: GPT) -> None:
    mlp = model.transformer.h[0].mlp
    x = torch.empty(5, 32).normal_(generator=torch.Generator().manual_seed(4))
    inner = (x @ mlp.c_fc.weight.T).clamp(min=0) ** 2
    torch.testing.assert_close(mlp(x), inner @ mlp.c_proj.weight.T, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_logits_are_capped_at_15_by_a_tanh(model: GPT) -> None:
    x = torch.empty(5, 32).normal_(std=30, generator=torch.Generator().manual_seed(4))
    expected = 15 * torch.tanh((x.double() @ model.lm_head.weight[:97].double().T) / 15)
    torch.testing.assert_close(model.logits(x).double(), expected, atol=1e-4, rtol=0)
    assert float(model.logits(1000 * x).abs().max()) <= 15.0


@torch.no_grad()
def test_the_head_is_not_tied_to_the_embedding(model: GPT) -> None:
    hidden = model.hidden(torch.arange(9)[None])
    before = model.logits(hidden)
    model.transformer.wte.weight.zero_()
    assert torch.equal(model.logits(hidden), before)


@torch.no_grad()
def test_rows_that_pad_the_vocabulary_are_never_seen(july: GPT) -> None:
    tokens = torch.arange(60, 97)[None]
    logits, loss = july(tokens), july(tokens, tokens.flip(1))
    for name in ("transformer.wte.weight", "value_embeds.0.weight", "lm_head.weight"):
        july.get_parameter(name)[97:] = 100.0
    assert logits.shape == (1, 37, 97)
    assert torch.equal(july(tokens), logits) and torch.equal(july(tokens, tokens.flip(1)), loss)


@torch.no_grad()
def test_a_later_token_never_changes_an_earlier_logit(model: GPT) -> None:
    tokens = torch.arange(16)[None]
    changed = tokens.clone()
    changed[0, 9] = 90
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


@torch.no_grad()
def test_reductions_agree_and_leave_ignored_targets_out(model: GPT) -> None:
    tokens = torch.arange(32).view(2, 16)
    targets = tokens.roll(-1, 1)
    targets[0, :7] = -1
    each = model(tokens, targets, loss_reduction="none")
    assert each.shape == (2, 16) and not each[0, :7].any()
    expected = F.cross_entropy(model(tokens)[0, 7:], targets[0, 7:], reduction="none")
    torch.testing.assert_close(each[0, 7:], expected)
    total = float(each.sum())
    assert float(model(tokens, targets, loss_reduction="sum")) == pytest.approx(total, rel=1e-5)
    assert float(model(tokens, targets)) == pytest.approx(total / 25, rel=1e-5)


def test_rotary_tables_grow_with_the_text():
    shape = {"vocab_size": 97, "n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 24}
    short, long = (GPT(ModelConfig(sequence_len=length, **shape)) for length in (3, 41))
    long.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        long.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1))  # a fresh head is zero
    short.load_state_dict(long.state_dict())
    idx = torch.randint(97, (2, 127), generator=torch.Generator().manual_seed(2))
    assert short.cos.size(1) < 127 <= long.cos.size(1)
    with torch.no_grad():
        assert torch.equal(short(idx), long(idx))


def test_a_model_trains_on_after_it_has_shown_a_long_text(model: GPT) -> None:
    with torch.inference_mode():
        model(torch.zeros(1, model.cos.size(1) + 1, dtype=torch.long))
    tokens = torch.arange(9)[None]
    model(tokens, tokens).backward()
    assert model.lm_head.weight.grad is not None
