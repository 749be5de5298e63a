"""The presets `2026-d12` to `2026-d26`, and the scaling laws from which their numbers follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from nanochat.config import (
    CardConfig,
    CorpusConfig,
    MidtrainConfig,
    MixtureEntry,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    PublishConfig,
    Recipe,
    TokenizerConfig,
)
from nanochat.model.flops import parameter_counts
from nanochat.recipes.shared import (
    BASE_PROMPTS,
    CHARACTERS_PER_TOKEN,
    CHAT_VALIDATION,
    DATA_SETS,
    FULL_EVALUATION,
    HUB,
    ON_GPUS,
    QUESTIONS,
    SHARD_CHARACTERS,
    sft_on_hub_data,
)

CLIMBMIX = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/{revision}/shard_{index:05d}.parquet"

# That of July 2026 counts what is multiplied: the matrices of the blocks and the head. 12 is upstream's
# default; its fastest runs to the level of GPT-2 used 8.
TOKENS_PER_MULTIPLIED = 12
_BATCH_AT_12 = 2**19  # tuned by upstream


class Scaling2026(NamedTuple):
    """What follows from the horizon. Sources: arXiv:2505.13738 (batch), arXiv:2405.13698 (decay)."""

    batch_tokens: int  # grows as the horizon to the power of 0.383, rounded to a power of two
    steps: int
    lr_factor: float  # grows as the root of the batch
    weight_decay: float


def scaled_2026(depth: int) -> Scaling2026:
    """Derive batch, steps and scaled settings of a depth from those tuned at depth 12."""
    horizon, reference = (TOKENS_PER_MULTIPLIED * _multiplied(_shape_2026(d)) for d in (depth, 12))
    batch_tokens: int = 2 ** round(math.log2(_BATCH_AT_12 * (horizon / reference) ** 0.383))
    lr_factor = (batch_tokens / _BATCH_AT_12) ** 0.5
    return Scaling2026(
        batch_tokens=batch_tokens,
        steps=max(1, horizon // batch_tokens),
        lr_factor=lr_factor,
        weight_decay=0.28 * lr_factor * reference / horizon,
    )


def _multiplied(model: ModelConfig) -> int:
    counts = parameter_counts(model)
    return counts["matrices"] + counts["lm_head"]


def _shape_2026(depth: int) -> ModelConfig:
    n_head = -(-depth * 64 // 128)
    return ModelConfig(
        architecture="2026",
        sequence_len=2048,
        vocab_size=32_768,
        n_layer=depth,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_head * 128,
    )


def _optimizer_2026(factor: float, weight_decay: float = 0.0) -> OptimizerConfig:
    return OptimizerConfig(
        matrix_lr=0.02 * factor,
        embedding_lr=0.3 * factor,
        unembedding_lr=0.008 * factor,
        scalar_lr=0.5 * factor,
        weight_decay=weight_decay,
        grad_clip=None,
    )


def _2026(depth: int) -> Recipe:
    """Derive upstream's pretraining of July 2026; the chat stages are this pipeline's, on upstream's data."""
    model, scaling = _shape_2026(depth), scaled_2026(depth)
    tokens = scaling.steps * scaling.batch_tokens
    mixture = (
        MixtureEntry(task="smoltalk"),
        MixtureEntry(task="mmlu", repeat=3),
        MixtureEntry(task="gsm8k", repeat=4),
    )
    return Recipe(
        name=f"2026-d{depth}",
        depth=depth,
        # A tenth more than is read; the last shard of the corpus validates.
        corpus=CorpusConfig(
            source=CLIMBMIX,
            revision="main",
            train_shards=min(
                6_542, max(8, math.ceil(1.1 * CHARACTERS_PER_TOKEN * tokens / SHARD_CHARACTERS))
            ),
            val_shard="6542",
        ),
        tasks=HUB,
        tokenizer=TokenizerConfig(vocab_size=model.vocab_size, train_shards=8),
        pretrain=PretrainConfig(
            compute=ON_GPUS,
            model=model,
            optimizer=_optimizer_2026(scaling.lr_factor, scaling.weight_decay),
            batch_tokens=scaling.batch_tokens,
            steps=scaling.steps,
            warmup_steps=min(40, scaling.steps),
            warmdown_ratio=0.65,
            final_lr_frac=0.05,
            eval_tokens=80 * 524_288,
            prompts=BASE_PROMPTS,
        ),
        midtrain=MidtrainConfig(
            compute=ON_GPUS,
            mixture=mixture,
            validation=CHAT_VALIDATION,
            optimizer=_optimizer_2026(0.8 * scaling.lr_factor),
            batch_tokens=scaling.batch_tokens,
            prompts=QUESTIONS,
        ),
        sft=sft_on_hub_data(_optimizer_2026(scaling.lr_factor)),
        evaluate=FULL_EVALUATION,
        publish=PublishConfig(
            title=f"nanochat 2026-d{depth}",
            datasets=("karpathy/climbmix-400b-shuffle", *DATA_SETS[1:]),
            card=CardConfig(corpus="ClimbMix, a shuffled part of 400 billion tokens"),
        ),
    )


def preset_2026(depth: int) -> Callable[..., Recipe]:
    """Return the preset with `depth` layers: a function of depth, with help of its own."""

    def preset(depth: int = depth) -> Recipe:
        return _2026(depth)

    preset.__doc__ = f"Pretraining of July 2026 with {depth} layers: 8xH100."
    return preset
