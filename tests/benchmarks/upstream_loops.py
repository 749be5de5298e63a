"""Upstream's evaluation loops in plain PyTorch, the baselines of `bench_evaluation.py`: nothing clever.

As upstream has them in October 2025 and July 2026: CORE one item at a time, multiple choice in batches of 8
in the order of the task, written answers one at a time with a KV cache. Rows are padded at their right, and
every position of every row is turned into logits of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch.nn import functional as F

from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.core.bundle import CoreTask
from nanochat.evals.core.score import scored_rows
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH = 8
_LIMIT = 20_480


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


@torch.no_grad()
def core(model: GPT, tokenizer: Tokenizer, task: CoreTask, items: Sequence[int]) -> dict[int, str]:
    """Return which option has the lowest loss, or whether a continuation is the likeliest, by item."""
    found = {}
    for item in items:
        rows = scored_rows(tokenizer, task, item, _LIMIT)
        tokens = _padded([row.tokens for row in rows], tokenizer.special("bos"))
        logits = model(tokens)
        losses = F.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten(), reduction="none")
        losses, likeliest = losses.view(tokens.shape), logits.argmax(-1)
        if task.kind == "language_modeling":
            [row] = rows
            said = likeliest[0, row.start - 1 : -1].tolist() == row.tokens[row.start :]
            found[item] = str(int(said))
        else:
            means = [
                losses[i, row.start - 1 : len(row.tokens) - 1].mean().item() for i, row in enumerate(rows)
            ]
            found[item] = str(means.index(min(means)))
    return found


@torch.no_grad()
def choices(model: GPT, tokenizer: Tokenizer, task: ChatTask, items: Sequence[int]) -> dict[int, str]:
    """Return the likeliest letter, by item."""
    found = {}
    for start in range(0, len(items), _BATCH):
        batch = items[start : start + _BATCH]
        prompts = [render_for_completion(tokenizer, task.conversation(item)) for item in batch]
        logits = model(_padded(prompts, tokenizer.special("bos")))  # (B, T, V)
        for row, item in enumerate(batch):
            letters = task.problem(item).letters
            ids = [tokenizer.encode(letter)[0] for letter in letters]
            found[item] = letters[int(logits[row, len(prompts[row]) - 1, ids].argmax())]
    return found


@torch.inference_mode()
def written(
    model: GPT,
    tokenizer: Tokenizer,
    task: ChatTask,
    items: Sequence[int],
    new_tokens: int,
    ends: Collection[int],
) -> dict[int, str]:
    """Return the greedy reply, by item; without the calculator, which costs nothing."""
    found = {}
    for item in items:
        prompt = render_for_completion(tokenizer, task.conversation(item))
        cache = KVCache(model.config, 1, len(prompt) + new_tokens)
        logits, reply = model(torch.tensor([prompt]), kv_cache=cache), list[int]()
        while len(reply) < new_tokens:
            token = int(logits[0, -1].argmax())
            if token in ends:
                break
            reply.append(token)
            logits = model(torch.tensor([[token]]), kv_cache=cache)
        found[item] = tokenizer.decode(reply)
    return found
