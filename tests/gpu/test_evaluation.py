"""What evaluation in bfloat16, as on a GPU, changes: bits per byte, and answers to multiple choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nanochat.evals.bpb import bits_per_byte
from nanochat.model.packed_rows import PackedRows
from tests.gpu.models import ARCHITECTURES, SHAPES, batch, learnt

_ITEMS, _CHOICES, _LENGTH = 200, 4, 32
# Of the largest logit, between the two best answers in float32, up to which bfloat16 may choose another. A
# logit is rounded to 2^-9 of itself, and so is what it is computed from: 2^-6 for one, as much for the other.
_CLOSE = 2**-5
_BITS = 0.002  # of bits per byte: roundings of single logits cancel over thousands of tokens


@pytest.fixture(params=ARCHITECTURES)
def model(request, device, sizes):
    return learnt(request.param, sizes, device)


@torch.inference_mode()
def _choices(model, precision):
    """Return the logits of each made-up item's choices, (items, choices), as `nanochat.evals.choice` does."""
    draw = np.random.default_rng(4)
    prompts = torch.from_numpy(draw.integers(1, model.config.vocab_size, (_ITEMS, _LENGTH)))
    letters = torch.from_numpy(draw.integers(1, model.config.vocab_size, (_ITEMS, _CHOICES)))
    model.precision = precision
    packed = PackedRows([[prompt] for prompt in prompts.tolist()], model.device)
    last = torch.tensor([place[-1] for [place] in packed.places], device=model.device)
    return model.logits(model.hidden_packed(packed)[last]).cpu().gather(1, letters)


def test_answers_differ_only_where_two_choices_are_close(model, keep):
    exact, rounded = _choices(model, torch.float32), _choices(model, torch.bfloat16)
    best = exact.topk(2).values
    differ = exact.argmax(1) != rounded.argmax(1)
    margins = (best[:, 0] - best[:, 1])[differ]
    keep(
        items=_ITEMS,
        differ=int(differ.sum()),
        margins=margins.tolist(),
        largest=float((exact - rounded).abs().max()),
    )
    assert margins.numel() < _ITEMS / 10
    assert not margins.gt(_CLOSE * exact.abs().max()).any(), margins


def test_bits_per_byte_are_close(model, sizes, keep):
    config = model.config
    token_bytes = np.full(config.vocab_size, 4, np.int32)
    values = {}
    for precision in (torch.float32, torch.bfloat16):
        model.precision = precision
        text = (batch(config, SHAPES[sizes].rows, 1000 + i) for i in range(2))
        values[str(precision)] = bits_per_byte(model, text, token_bytes)
    keep(**values)
    exact, rounded = values.values()
    assert 0 < exact < np.log2(config.vocab_size) / 4  # it has learnt something
    assert abs(rounded - exact) <= _BITS
