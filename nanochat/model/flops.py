"""Counts that follow from a model's shape: parameters, floating point operations, utilisation.

Formulas are upstream's (October 2025), so that published numbers can be compared. No tensors are made here.
"""

from __future__ import annotations

from nanochat.config import ModelConfig

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


def parameter_count(config: ModelConfig) -> int:
    """Return the number of parameters, embedding and head included."""
    kv_width = config.n_kv_head * (config.n_embd // config.n_head)
    block = config.n_embd * (2 * config.n_embd + 2 * kv_width) + 8 * config.n_embd**2
    return 2 * config.vocab_size * config.n_embd + config.n_layer * block


def flops_per_token(config: ModelConfig) -> int:
    """Return forward and backward operations per trained token at full context."""
    matrices = parameter_count(config) - config.vocab_size * config.n_embd
    return 6 * matrices + 12 * config.n_layer * config.n_embd * config.sequence_len


def peak_flops(device_name: str) -> float | None:
    """Return a GPU's peak bfloat16 operations per second, or None where it is not known."""
    names = sorted((name for name in _PEAK_FLOPS if name in device_name), key=len)
    return _PEAK_FLOPS[names[-1]] if names else None
