"""How the three training stages train: optimizer, precision, batches, steps, and what is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nanochat.config.base import Config, require_whole_rows
from nanochat.config.data import MixtureEntry
from nanochat.config.model import ModelConfig


class OptimizerConfig(Config):
    """Learning rates before scaling by width: Muon for the block matrices, AdamW for the rest."""

    matrix_lr: float = Field(default=0.02, gt=0)
    """Muon, all matrices inside the blocks."""
    embedding_lr: float = Field(default=0.2, gt=0)
    """AdamW, token embedding; scaled by (n_embd / 768) ** -0.5."""
    unembedding_lr: float = Field(default=0.004, gt=0)
    """AdamW, output head; scaled likewise."""
    scalar_lr: float = Field(default=0.5, gt=0)
    """AdamW, architecture `2026` only: the factors of the embedding; a hundredth for those of the stream."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Architecture `classic`: AdamW's; `2026`: of the block matrices (AdamW's groups have their own)."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Largest global gradient norm; None: no clipping."""


_REFERENCE_WIDTH = 768  # rates of embeddings and head are those of a model this wide
_SMEAR_LR = 0.2


def learning_rates(model: ModelConfig, optimizer: OptimizerConfig) -> dict[str, float]:
    """Return the learning rate of each kind of parameter that the architecture has, at multiplier 1."""
    by_width = (model.n_embd / _REFERENCE_WIDTH) ** -0.5
    embedding_lr = optimizer.embedding_lr * by_width
    rates = {
        "lm_head": optimizer.unembedding_lr * by_width,
        "wte": embedding_lr,
        "matrices": optimizer.matrix_lr,
    }
    if model.architecture == "2026":
        rates |= {
            "value_embeds": embedding_lr * 0.5,
            "x0_lambdas": optimizer.scalar_lr,
            "resid_lambdas": optimizer.scalar_lr * 0.01,
            "scalars": _SMEAR_LR,
        }
    return rates


class ComputeConfig(Config):
    """How training passes are computed, which changes the last digits of all numbers."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products and of activations between them; weights and sums stay float32."""
    compile: bool = False
    """Whether PyTorch compiles the passes: up to minutes before the first step, then faster steps."""


_HELD_OUT_PART = 0.02
_HELD_OUT_MOST = 256  # enough for a mean with about 1 % of noise, and a second or two on a CPU
_VALIDATION_HELP = (
    f"Data sets to validate on; none: the last {100 * _HELD_OUT_PART:.0f} % of the mixture"
    f" (1 to {_HELD_OUT_MOST} rows), which are not trained on."
)


def held_out_rows(rows: int) -> int:
    """Return how many rows at the end of a mixture are for validation when no validation data is named."""
    return min(max(1, int(_HELD_OUT_PART * rows)), _HELD_OUT_MOST)


class PretrainConfig(Config):
    """What is pretrained, on how many tokens."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    batch_tokens: int = Field(default=524_288, gt=0)
    """Tokens per optimizer step, all ranks together."""
    steps: int = Field(default=21_400, gt=0)
    """Optimizer steps."""
    warmup_steps: int = Field(default=0, ge=0)
    """First steps over which the learning rate rises linearly."""
    warmdown_ratio: float = Field(default=0.2, ge=0, le=1)
    """Last part of the run over which the learning rate falls linearly to `final_lr_frac` of its value."""
    final_lr_frac: float = Field(default=0.0, ge=0, le=1)
    """Fraction of its value at which the learning rate ends."""
    eval_every: int = Field(default=250, gt=0)
    """Steps between measurements of validation bits per byte."""
    eval_tokens: int = Field(default=20 * 524_288, gt=0)
    """Maximum validation tokens read each time."""
    sample_every: int = Field(default=2000, gt=0)
    """Steps between sets of sampled texts."""
    prompts: tuple[str, ...] = ()
    """Prompts that the samples continue."""
    seed: int = 1337
    """Decides the initial weights and the order of the text."""
    shuffle: bool = True
    """Whether documents are read in an order drawn anew for each epoch; else in that of the shards, easy ones
    first where these are written so."""
    documents_apart: bool = False
    """Whether documents that share a row are hidden from each other, here and in all later stages; in the
    published models they are not."""

    @model_validator(mode="after")
    def _batch_fits(self) -> PretrainConfig:
        require_whole_rows("batch_tokens", self.batch_tokens, self.model.sequence_len)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, more than steps ({self.steps});"
                f" use {self.steps} or fewer"
            )
        return self


class MidtrainConfig(Config):
    """Training on whole rendered conversations, every token counted."""

    mixture: tuple[MixtureEntry, ...] = ()
    """Data sets to mix; none: everything at `tasks.source` that is for training."""
    validation: tuple[MixtureEntry, ...] = Field(default=(), description=_VALIDATION_HELP)
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    batch_tokens: int = Field(default=524_288, gt=0)
    """Tokens per optimizer step, all ranks together."""
    epochs: int = Field(default=1, gt=0)
    """Number of passes over the mixture."""
    eval_every: int = Field(default=150, gt=0)
    """Steps between measurements of validation bits per byte."""
    sample_every: int = Field(default=1000, gt=0)
    """Steps between sets of sampled answers."""
    prompts: tuple[str, ...] = ()
    """User messages that the samples answer."""
    seed: int = 42
    """Decides the order of the mixture."""


class SftConfig(Config):
    """Training on answers only, one conversation a row."""

    mixture: tuple[MixtureEntry, ...] = ()
    """Data sets to mix; none: everything at `tasks.source` that is for training."""
    validation: tuple[MixtureEntry, ...] = Field(default=(), description=_VALIDATION_HELP)
    optimizer: OptimizerConfig = OptimizerConfig(grad_clip=None)
    compute: ComputeConfig = ComputeConfig()
    init_lr_frac: float = Field(default=0.02, gt=0, le=1)
    """All learning rates start at this fraction of their value and fall linearly to zero."""
    batch_rows: int = Field(default=32, gt=0)
    """Conversations per optimizer step, all ranks together. An epoch has rows // batch_rows steps, each an
    update: 651 for the published 20,843 rows (upstream counts 651, but stops before the last update)."""
    epochs: int = Field(default=1, gt=0)
    """Number of passes over the mixture."""
    eval_every: int = Field(default=100, gt=0)
    """Steps between measurements of the validation loss."""
    sample_every: int = Field(default=200, gt=0)
    """Steps between sets of sampled answers."""
    prompts: tuple[str, ...] = ()
    """User messages that the samples answer."""
    seed: int = 42
    """Decides the order of the mixture."""


TrainingConfig = PretrainConfig | MidtrainConfig | SftConfig
