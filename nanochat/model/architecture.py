"""The two architectures: what sets them apart in numbers, and which parts a layer has.

`classic` is upstream nanochat of October 2025, `2026` that of July 2026. How the residual stream runs through
the blocks is the other half of the difference (`nanochat.model.gpt`). No tensors are made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nanochat.config import ModelConfig

ParameterKind = Literal[
    "lm_head", "wte", "value_embeds", "resid_lambdas", "x0_lambdas", "scalars", "matrices"
]
VALUE_GATE_CHANNELS = 12  # channels of a block's input that decide how much value embedding is mixed in
_WINDOW_STEP = 128  # short windows are whole tiles of FlashAttention 3


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The numbers of one architecture."""

    rope_base: float
    bfloat16_tables: bool
    """Whether rotary tables are rounded to bfloat16 whatever the model computes in."""
    qk_scale: float
    """Factor of queries and of keys, after their normalisation."""
    vocab_multiple: int
    """Embeddings and head have rows to a multiple of this; those past the vocabulary are never seen."""


ARCHITECTURES = {
    "classic": Architecture(rope_base=10_000.0, bfloat16_tables=True, qk_scale=1.0, vocab_multiple=1),
    "2026": Architecture(rope_base=100_000.0, bfloat16_tables=False, qk_scale=1.2, vocab_multiple=64),
}


def architecture_of(config: ModelConfig) -> Architecture:
    """Return the numbers of the configured architecture."""
    return ARCHITECTURES[config.architecture]


def plain_name(name: str) -> str:
    """Return the name of a weight without what torch.compile puts before it."""
    return name.removeprefix("_orig_mod.")


def architecture_of_state(names: Iterable[str]) -> Literal["classic", "2026"] | None:
    """Return the architecture that names of weights show; None: neither this project's nor upstream's."""
    found = {plain_name(name) for name in names}
    if "transformer.wte.weight" not in found:
        return None
    return "2026" if "resid_lambdas" in found else "classic"


def vocabulary_rows(config: ModelConfig) -> int:
    """Return the rows of embeddings and head: the vocabulary, padded."""
    multiple = architecture_of(config).vocab_multiple
    return -(-config.vocab_size // multiple) * multiple


def windows(config: ModelConfig) -> tuple[int | None, ...]:
    """Return per layer how many positions before its own a query sees; None: all."""
    if config.window_pattern is None:
        return (None,) * config.n_layer
    whole = config.sequence_len
    reach = {"S": -(-whole // (4 * _WINDOW_STEP)) * _WINDOW_STEP, "L": whole}
    letters = [config.window_pattern[i % len(config.window_pattern)] for i in range(config.n_layer - 1)]
    return tuple(reach[letter] for letter in (*letters, "L"))


def has_value_embedding(config: ModelConfig, layer: int) -> bool:
    """Return whether a layer mixes an embedding of the token into its values: every other, and the last."""
    return config.architecture == "2026" and layer % 2 == (config.n_layer - 1) % 2


def parameter_kind(name: str) -> ParameterKind:
    """Return the kind of the parameter of this name; those of a kind are trained alike."""
    if name.startswith("transformer.h."):
        return "matrices"
    kinds: dict[str, ParameterKind] = {
        "transformer": "wte",
        "lm_head": "lm_head",
        "value_embeds": "value_embeds",
        "resid_lambdas": "resid_lambdas",
        "x0_lambdas": "x0_lambdas",
        "smear_gate": "scalars",
        "smear_lambda": "scalars",
        "backout_lambda": "scalars",
    }
    return kinds[name.split(".")[0]]
