from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.model.inference_weights import (
    KINDS,
    Int4Product,
    Int8Product,
    best_kind,
    use_weights,
    weight_bytes,
)
from nanochat.model.kv_cache import KVCache

ERRORS = {Int8Product: 0.015, Int4Product: 0.1}  # of a random product, relative: steps of 1/127 and of 1/15


def _model(architecture):
    shape = {"sequence_len": 64, "vocab_size": 300, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 128}
    model = GPT(ModelConfig(architecture=architecture, **shape))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1, generator=generator)
    return model


def _read(model, texts):
    with torch.inference_mode():
        cache = KVCache(model.config, len(texts), dtype=model.cache_dtype)
        return model.read(texts, cache, range(len(texts)))


@pytest.mark.parametrize("kind", ERRORS)
def test_a_product_of_few_bits_is_close_and_each_row_depends_on_itself_alone(kind):
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(rows, 256, generator=generator) for rows in (64, 32)]
    x = torch.randn(9, 256, generator=generator) * torch.logspace(-3, 3, 9)[:, None]  # rows of unlike sizes
    x[4] = 0
    made, exact = kind(maps), x @ torch.cat(maps).T
    found = made(x[None])[0]
    error = (found - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(1e-9)
    assert error.max() < ERRORS[kind]
    assert torch.equal(found, torch.cat([made(row[None]) for row in x]))


@pytest.mark.parametrize("architecture", ["classic", "2026"])
@pytest.mark.parametrize(("kind", "most"), [("bfloat16", 0.02), ("int8", 0.05), ("int4", 0.5)])
def test_a_converted_model_computes_nearly_the_same(architecture, kind, most):
    texts = [[5, 6, 7, 8, 200], [9, 10], [5, 299, 0]]  # random weights are what rounding harms most
    model = _model(architecture)
    exact, targets = _read(model, texts), torch.tensor([[6, 7, 8, 200, -1]])
    with torch.no_grad():
        loss = model(torch.tensor([texts[0]]), targets)
        few = model.logits(model.hidden(torch.tensor([texts[0]])), [3, 299])
    use_weights(model, kind)
    found = _read(model, texts).float()
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert (found - exact).norm() / exact.norm() < most
    with torch.no_grad():
        assert abs(model(torch.tensor([texts[0]]), targets) - loss) < most
        assert (
            model.logits(model.hidden(torch.tensor([texts[0]])), [3, 299]) - few
        ).norm() < most * few.norm()
    if kind == "int8":  # what a server answers does not depend on who else asks
        alone = torch.cat([_read(model, [text]) for text in texts])
        assert torch.equal(found.argmax(-1), alone.argmax(-1)) and (found - alone).abs().max() < 1e-5


def test_float32_leaves_a_model_alone():
    model = _model("classic")
    before = dict(model.state_dict())
    use_weights(model, "float32")
    assert all(
        model.state_dict()[name] is weight or torch.equal(model.state_dict()[name], weight)
        for name, weight in before.items()
    )


def test_the_quick_kind_is_chosen_by_device_and_size():
    small = _model("classic").config
    d20 = small.model_copy(
        update={"vocab_size": 65536, "n_layer": 20, "n_head": 10, "n_kv_head": 10, "n_embd": 1280}
    )
    assert best_kind(small, torch.device("cpu")) == "float32"
    assert best_kind(d20, torch.device("cpu")) == "int8"
    assert best_kind(small, torch.device("cuda")) == "bfloat16"
    assert set(KINDS) == {"float32", "bfloat16", "int8", "int4"}


def test_the_memory_of_each_kind_is_that_of_its_numbers_and_scales():
    width, vocabulary, layers = 128, 300, 3
    rows = {width: layers * 7 * width + vocabulary, 4 * width: layers * width}  # by their length
    weights = sum(length * count for length, count in rows.items())
    table, head = width * vocabulary, width * vocabulary
    known = {
        "float32": 4 * (weights + table),
        "bfloat16": 2 * (weights + table),
        "int8": 2 * table + sum((length + 12) * count for length, count in rows.items()),
        "int4": 2 * table + (weights - head) * (1 / 2 + 4 / 32) + (width + 12) * vocabulary,
    }
    for kind, size in known.items():
        model = _model("classic")
        use_weights(model, kind)
        assert weight_bytes(model) == size
    assert known["int4"] < known["int8"] < known["bfloat16"] < known["float32"]


def test_few_bits_are_for_cpus():
    with pytest.raises(ConfigError, match="'int8' and the device is meta"):
        use_weights(_model("classic").to("meta"), "int8")
