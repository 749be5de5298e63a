"""Greedy continuation of one prompt by the plainest loop: what generation is compared with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache


@torch.inference_mode()
def greedy(
    model: GPT, prompt: Sequence[int], max_new_tokens: int, stop: Collection[int] = frozenset()
) -> list[int]:
    """Return the likeliest next tokens one by one, without the prompt and without a stop token."""
    cache = KVCache(model.config, 1, len(prompt) + max_new_tokens, device=model.device)
    new, tokens = list(prompt), list[int]()
    for _ in range(max_new_tokens):
        logits = model(torch.tensor([new], device=model.device), kv_cache=cache, last_only=True)
        token = int(logits[0, -1].argmax())
        if token in stop:
            break
        tokens.append(token)
        new = [token]
    return tokens
