"""Generation with a cache of keys and values against the whole text computed anew for each token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nanochat.model.kv_cache import KVCache
from tests.gpu.models import ARCHITECTURES, learnt
from tests.support.greedy import greedy

_LENGTHS = (40, 7, 1, 23)  # of prompts
_NEW = 24
# Two ways of computing the same bfloat16 logits, in norm: both 8 bits of each of some dozen results.
_TOLERANCE = 0.03


@pytest.fixture(params=ARCHITECTURES)
def model(request, device, sizes):
    return learnt(request.param, sizes, device)


@pytest.fixture
def prompts(model):
    draw = np.random.default_rng(3)
    return [draw.integers(1, model.config.vocab_size, length).tolist() for length in _LENGTHS]


@torch.inference_mode()
def _anew(model, prompt):
    text = torch.tensor([prompt], device=model.device)
    for _ in range(_NEW):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    return text[0, len(prompt) :].tolist()


def _cache(model, prompts):
    return KVCache(model.config, len(prompts), device=model.device, dtype=model.cache_dtype)


def test_in_float32_the_tokens_are_the_same(model, prompts):
    model.precision = torch.float32
    expected = [_anew(model, prompt) for prompt in prompts]
    assert [greedy(model, prompt, _NEW) for prompt in prompts] == expected
    cache, found = _cache(model, prompts), []
    with torch.inference_mode():
        new = model.read(prompts, cache, range(len(prompts)))[:, None].argmax(-1)
        for _ in range(_NEW):
            found.append(new[:, 0].tolist())
            new = model(new, kv_cache=cache, last_only=True)[:, -1:].argmax(-1)
    assert [list(tokens) for tokens in zip(*found, strict=True)] == expected


def test_in_bfloat16_the_logits_are_close(model, prompts, keep):
    model.precision = torch.bfloat16
    texts = [prompt + _anew(model, prompt) for prompt in prompts]
    cache = _cache(model, prompts)
    new = torch.tensor([text[-_NEW:] for text in texts], device=model.device)
    with torch.inference_mode():
        logits = [model.read(prompts, cache, range(len(prompts)))[:, None]]
        logits += [model(part, kv_cache=cache) for part in new.split(1, dim=1)]
        together = torch.cat(logits, dim=1)  # (B, 1 + new, V)
        alone = [model(torch.tensor([text], device=model.device))[0, -1 - _NEW :] for text in texts]
    errors = [float((x - y).norm() / y.norm()) for x, y in zip(together, alone, strict=True)]
    keep(errors=errors)
    assert max(errors) <= _TOLERANCE, errors
