"""The published models of October 2025: `d20` and `d32`, and `d20-spelling` with later chat data."""

from __future__ import annotations

from nanochat.config import (
    CardConfig,
    CorpusConfig,
    MidtrainConfig,
    MixtureEntry,
    OptimizerConfig,
    PretrainConfig,
    PublishConfig,
    Recipe,
    TokenizerConfig,
)
from nanochat.model.flops import parameter_count
from nanochat.recipes.shared import (
    BASE_PROMPTS,
    CHAT_VALIDATION,
    DATA_SETS,
    FINEWEB_EDU,
    FULL_EVALUATION,
    HUB,
    ON_GPUS,
    QUESTIONS,
    SHARD_CHARACTERS,
    model_shape,
    sft_on_hub_data,
)
from nanochat.recipes.spelling import with_spelling

TOKENS_PER_PARAMETER = 20  # the horizon of October 2025


def d20(depth: int = 20) -> Recipe:
    """The published result of October 2025: 8xH100, about four hours."""
    return _classic(depth, shards=240, tokenizer_shards=8)


def d32(depth: int = 32) -> Recipe:
    """The same with 1.9 billion parameters: 8xH100, about 33 hours."""
    return _classic(depth, shards=800, tokenizer_shards=16)


def d20_spelling(depth: int = 20) -> Recipe:
    """The same as d20 with identity and spelling, the chat data since 2025-10-24."""
    return with_spelling(d20(depth))


def _classic(depth: int, *, shards: int, tokenizer_shards: int) -> Recipe:
    """Derive the recipe of October 2025, whose last text shard validates."""
    vocab_size = 65_536
    model = model_shape(depth, vocab_size=vocab_size, sequence_len=2048)
    batch_tokens = 524_288
    unclipped = OptimizerConfig(grad_clip=None)  # only pretraining clipped gradients
    return Recipe(
        name=f"d{depth}",
        depth=depth,
        corpus=CorpusConfig(
            source=FINEWEB_EDU, revision="main", train_shards=shards - 1, val_shard=str(shards - 1)
        ),
        tasks=HUB,
        tokenizer=TokenizerConfig(
            vocab_size=vocab_size,
            train_shards=tokenizer_shards,
            max_chars=tokenizer_shards * SHARD_CHARACTERS,
        ),
        pretrain=PretrainConfig(
            compute=ON_GPUS,
            model=model,
            optimizer=OptimizerConfig(),
            batch_tokens=batch_tokens,
            steps=max(1, TOKENS_PER_PARAMETER * parameter_count(model) // batch_tokens),
            prompts=BASE_PROMPTS,
        ),
        midtrain=MidtrainConfig(
            compute=ON_GPUS,
            mixture=(MixtureEntry(task="smoltalk"), MixtureEntry(task="mmlu"), MixtureEntry(task="gsm8k")),
            validation=CHAT_VALIDATION,
            optimizer=unclipped,
            batch_tokens=batch_tokens,
            prompts=QUESTIONS,
        ),
        sft=sft_on_hub_data(unclipped),
        evaluate=FULL_EVALUATION,
        publish=PublishConfig(
            title=f"nanochat d{depth}",
            datasets=DATA_SETS,
            card=CardConfig(corpus="FineWeb-EDU, a shuffled part of 100 billion tokens"),
        ),
    )
