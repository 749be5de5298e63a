"""An estimate of the GPU memory of one training step, before any GPU is there.

It adds up what must be kept at once, per GPU: weights and gradients in float32, the optimizer's state shared
out over all GPUs, the bfloat16 copies that products are computed with, what the forward pass keeps for the
backward pass, and the logits. What an allocator or a communication library takes beside them is left out, so
it is a lower bound: the training loop finds out what does fit (`nanochat.train`). Nothing is allocated here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kernels.sizes import LOGIT_CHUNK_BYTES
from nanochat.config import ModelConfig
from nanochat.model.flops import parameter_counts

_FLOAT32, _BFLOAT16 = 4, 2
_ADAMW_STATES, _MUON_STATES = 2, 1


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a step is computed, by what it keeps."""

    name: str
    activation_bytes: int  # per token, channel and layer
    logit_bytes: int  # per token and entry of the vocabulary
    logits_at_once: int | None = None  # bytes of them that exist at a time; None: all of a pass


# As this pipeline trains on a GPU, compiled: the loss takes bfloat16 logits in chunks and turns them into
# their gradient in place (`kernels.linear_cross_entropy.op`); activations as PyTorch's compiler plans them
# for a GPU (30 classic, 33 for 2026).
FUSED = Execution(
    name="fused loss, compiled", activation_bytes=33, logit_bytes=2, logits_at_once=LOGIT_CHUNK_BYTES
)
# As upstream does it, compiled: logits in bfloat16 (2), capped in float32 (4), and their gradient (4);
# activations are what its 75,422 MiB for d20 with 32 rows of 2,048 on 8 GPUs leave after all other parts.
COMPILED = Execution(name="compiled", activation_bytes=18, logit_bytes=10)
# Operation by operation: what autograd keeps, counted with its saved-tensor hooks (32 classic, 34 for 2026).
EAGER = Execution(name="eager", activation_bytes=34, logit_bytes=2, logits_at_once=LOGIT_CHUNK_BYTES)


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one GPU, part by part."""

    rows: int  # of one pass
    weights: int
    gradients: int
    optimizer: int
    copies: int  # bfloat16, of what is multiplied
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All parts together."""
        parts = (self.weights, self.gradients, self.optimizer, self.copies, self.activations, self.logits)
        return sum(parts)


def optimizer_numbers(model: ModelConfig) -> int:
    """Return how many numbers the optimizer keeps beside the weights."""
    counts = parameter_counts(model)
    matrices = counts["matrices"]
    return _MUON_STATES * matrices + _ADAMW_STATES * (sum(counts.values()) - matrices)


def training_memory(model: ModelConfig, rows: int, gpus: int, how: Execution = FUSED) -> MemoryEstimate:
    """Estimate a training step with `rows` rows a pass on each of `gpus` GPUs."""
    counts = parameter_counts(model)
    parameters, matrices = sum(counts.values()), counts["matrices"]
    tokens = rows * model.sequence_len
    return MemoryEstimate(
        rows=rows,
        weights=_FLOAT32 * parameters,
        gradients=_FLOAT32 * parameters,
        optimizer=_FLOAT32 * optimizer_numbers(model) // gpus,
        copies=_BFLOAT16 * (matrices + counts["lm_head"]),
        activations=how.activation_bytes * tokens * model.n_embd * model.n_layer,
        logits=min(how.logit_bytes * tokens * model.vocab_size, how.logits_at_once or sys.maxsize),
    )


def largest_pass(
    model: ModelConfig, batch_rows: int, gpus: int, memory_bytes: float, how: Execution = FUSED
) -> MemoryEstimate | None:
    """Return the estimate for the most rows that fit: a GPU's share of the batch, halved; None if none do."""
    rows = max(1, -(-batch_rows // gpus))
    while rows:
        estimate = training_memory(model, rows, gpus, how)
        if estimate.total <= memory_bytes:
            return estimate
        rows //= 2
    return None
