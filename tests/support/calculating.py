"""A real model whose weights make it answer everything with one calculation: 3+4, its result, a full stop."""

from __future__ import annotations

import itertools

import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

SHOWN = "[3+4 = 7] ."


def calculating_model(tokenizer: Tokenizer, config: ModelConfig) -> GPT:
    """Return a model without attention whose next token follows from the last one alone."""
    text, special = tokenizer.encode, tokenizer.special
    chain = [special("python_start"), *text("3+4"), special("python_end")]
    after = dict(itertools.pairwise(chain))
    after |= {special("output_end"): text(".")[0], text(".")[0]: special("assistant_end")}
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(1))  # nothing is written back to the stream
    with torch.no_grad():
        model.transformer.wte.weight.zero_()[:, 0] = 1  # all other tokens: a calculation begins
        model.lm_head.weight.zero_()[chain[0], 0] = 8
        for direction, (token, following) in enumerate(after.items(), start=1):
            model.transformer.wte.weight[token] = torch.eye(config.n_embd)[direction]
            model.lm_head.weight[following, direction] = 8
    return model
