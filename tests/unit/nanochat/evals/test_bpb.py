from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nanochat.evals.bpb import bits_per_byte


def test_only_targets_with_bytes_count_and_longer_tokens_weigh_more(model, tokenizer):
    bos = tokenizer.special("bos")
    inputs = np.array([[bos, 65, 256, 66, 7]])
    targets = np.array([[65, 256, -1, bos, 257]])  # 1, 2, ignored, no bytes, 4 bytes
    with torch.inference_mode():
        losses = -model(torch.from_numpy(inputs))[0].log_softmax(-1)
    nats = losses[0, 65] + losses[1, 256] + losses[4, 257]
    assert bits_per_byte(model, [(inputs, targets)], tokenizer.token_bytes()) == pytest.approx(
        float(nats) / (math.log(2) * 7), rel=1e-6
    )


def test_no_counted_byte_gives_infinity(model, tokenizer):
    bos = tokenizer.special("bos")
    batch = (np.array([[bos, 1]]), np.array([[bos, -1]]))
    assert bits_per_byte(model, [batch], tokenizer.token_bytes()) == math.inf
    assert bits_per_byte(model, [], tokenizer.token_bytes()) == math.inf


def test_batching_does_not_change_the_measure(model, tokenizer):
    rng = np.random.default_rng(1)
    inputs, targets = rng.integers(0, 258, (4, 11)), rng.integers(0, 258, (4, 11))
    whole = bits_per_byte(model, [(inputs, targets)], tokenizer.token_bytes())
    rows = [(inputs[i : i + 1], targets[i : i + 1]) for i in range(4)]
    assert bits_per_byte(model, rows, tokenizer.token_bytes()) == pytest.approx(whole, rel=1e-5)
