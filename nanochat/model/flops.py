"""Counts that follow from a model's shape: parameters, floating point operations, utilisation.

Formulas are upstream's, so that published numbers can be compared. No tensors are made here.
"""

from __future__ import annotations

import re

from nanochat.config import SMEAR_CHANNELS, ModelConfig
from nanochat.model.architecture import (
    VALUE_GATE_CHANNELS,
    ParameterKind,
    has_value_embedding,
    vocabulary_rows,
    windows,
)

# Dense bfloat16 operations per second by the name that the driver reports, longest match first.
_PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "MI300X": 1307.4e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}

_OTHER_VARIANTS = {"laptop", "max", "mig", "ti", "super", "d", "nvl"}


def parameter_counts(config: ModelConfig) -> dict[ParameterKind, int]:
    """Return the number of parameters of each kind that the architecture has; padding rows count."""
    kv_width = config.n_kv_head * (config.n_embd // config.n_head)
    vocabulary = vocabulary_rows(config)
    block = config.n_embd * (2 * config.n_embd + 2 * kv_width) + 8 * config.n_embd**2
    counts: dict[ParameterKind, int] = {
        "lm_head": vocabulary * config.n_embd,
        "wte": vocabulary * config.n_embd,
        "matrices": config.n_layer * block,
    }
    if config.architecture == "2026":
        embedded = sum(has_value_embedding(config, layer) for layer in range(config.n_layer))
        counts["matrices"] += embedded * VALUE_GATE_CHANNELS * config.n_kv_head
        counts["value_embeds"] = embedded * vocabulary * kv_width
        counts["resid_lambdas"] = counts["x0_lambdas"] = config.n_layer
        counts["scalars"] = SMEAR_CHANNELS + 2
    return counts


def parameter_count(config: ModelConfig) -> int:
    """Return the number of parameters, embeddings and head included."""
    return sum(parameter_counts(config).values())


def tensor_count(config: ModelConfig) -> int:
    """Return the number of tensors in a checkpoint."""
    embedded = sum(has_value_embedding(config, layer) for layer in range(config.n_layer))
    extras = 5 if config.architecture == "2026" else 0  # two lists of residual scalars, smear twice, backout
    return 2 + 6 * config.n_layer + 2 * embedded + extras


def flops_per_token(config: ModelConfig) -> int:
    """Return forward and backward operations per trained token at full context."""
    counts = parameter_counts(config)
    multiplied = counts["matrices"] + counts["lm_head"]
    if config.architecture == "2026":
        multiplied += SMEAR_CHANNELS  # the gate
    whole = config.sequence_len
    attended = sum(whole if window is None else min(window, whole) for window in windows(config))
    return 6 * multiplied + 12 * config.n_embd * attended


def peak_flops(device_name: str) -> float | None:
    """Return a GPU's peak bfloat16 operations per second, or None where it is not known.

    Whole words must match, and no word may name another variant: an L40 is not an L4, a laptop's RTX 4090 is
    not the card of that name, and a MIG slice is only a part.
    """
    words = _words(device_name)
    found = [name for name in _PEAK_FLOPS if f" {_words(name)} " in f" {words} "]
    if not found:
        return None
    best = max(found, key=len)
    rest = set(words.split()) - set(_words(best).split())
    return None if rest & _OTHER_VARIANTS else _PEAK_FLOPS[best]


def _words(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
