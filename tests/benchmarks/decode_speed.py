"""How fast a model writes: tokens per second with the KV cache, beside what reading the weights takes.

Greedy, all rows the same length, each step's tokens read by the host as chat does. In float32 the model is
the one that chat loads; in bfloat16 weights and cache are cast once.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanochat.config import ModelConfig
from nanochat.model.flops import parameter_counts
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

BYTES_PER_S = 3.35e12  # of an H100's memory


@dataclass(frozen=True, kw_only=True)
class Text:
    """How much is read and written."""

    prompt: int = 128
    new: int = 64


def cast(model: GPT, dtype: torch.dtype) -> None:
    """Turn weights into a type; tables stay as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


@torch.inference_mode()
def write(model: GPT, rows: int, text: Text) -> tuple[list[float], Tensor]:
    """Continue random prompts; return the seconds of each step, the prompt's first, and the last logits."""
    device, config = model.device, model.config
    cache = KVCache(config, rows, text.prompt + text.new, device=device, dtype=model.lm_head.weight.dtype)
    generator = torch.Generator().manual_seed(rows)
    tokens = torch.randint(config.vocab_size, (rows, text.prompt), generator=generator).to(device)
    seconds = []
    for _ in range(text.new + 1):
        began = time.perf_counter()
        logits = model(tokens, kv_cache=cache, last_only=True)[:, -1]  # (B, V)
        tokens = torch.tensor(logits.argmax(dim=-1).tolist(), device=device)[:, None]
        seconds.append(time.perf_counter() - began)
    return seconds, logits


def floor_bytes(config: ModelConfig, rows: int, context: int, size: int) -> int:
    """Return the bytes that one step has to read: all that is multiplied, and keys and values of all rows."""
    counts = parameter_counts(config)
    weights = counts["matrices"] + counts["lm_head"]
    kept = 2 * config.n_layer * config.n_kv_head * (config.n_embd // config.n_head) * context * rows
    return size * (weights + kept)


def measured(model: GPT, rows: int, text: Text) -> tuple[dict[str, Any], bool]:
    """Return a row of numbers, and whether all logits are finite."""
    write(model, rows, Text(prompt=text.prompt, new=2))
    seconds, logits = write(model, rows, text)
    step, size = statistics.median(seconds[1:]), model.lm_head.weight.element_size()
    read = floor_bytes(model.config, rows, text.prompt + text.new // 2, size)
    return {
        "batch": rows,
        "tokens_per_s": rows / step,
        "step_ms": 1e3 * step,
        "prompt_ms": 1e3 * seconds[0],
        "gb_per_step": read / 1e9,
        "floor_ms": 1e3 * read / BYTES_PER_S,
        "share_of_floor": read / BYTES_PER_S / step,
    }, bool(torch.isfinite(logits).all())
