"""Recipes: one dial (`depth`) from which the presets derive every number.

Presets are functions of depth, so that turning the dial derives everything anew; `find` returns one by name.
How single fields are changed is `nanochat.overrides`, what they mean stands in `nanochat.config`, what a
recipe costs is `nanochat.costs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from nanochat.config import (
    ComputeConfig,
    CorpusConfig,
    EvaluateConfig,
    MidtrainConfig,
    MixtureEntry,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    PublishConfig,
    Recipe,
    SftConfig,
    TasksConfig,
    TokenizerConfig,
    ToyWorldConfig,
)
from nanochat.errors import ConfigError
from nanochat.model.flops import parameter_count, parameter_counts
from nanochat.overrides import apply, explain, nearest, read, split
from nanochat.spelling_recipe import with_spelling

FINEWEB_EDU = "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/{revision}/shard_{index:05d}.parquet"
CLIMBMIX = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/{revision}/shard_{index:05d}.parquet"

DEEPEST = 1000  # the dial's end: beyond it a mistyped number, not a model
TOKENS_PER_PARAMETER = 20  # the horizon of October 2025
# That of July 2026 counts what is multiplied: the matrices of the blocks and the head. 12 is upstream's
# default; its fastest runs to the level of GPT-2 used 8.
TOKENS_PER_MULTIPLIED = 12

_BATCH_AT_12 = 2**19  # tuned by upstream

_DATA_SETS = (
    "HuggingFaceFW/fineweb-edu",
    "HuggingFaceTB/smol-smoltalk",
    "cais/mmlu",
    "openai/gsm8k",
    "allenai/ai2_arc",
)

_BASE_PROMPTS = (
    "The capital of France is",
    "The chemical symbol of gold is",
    "If yesterday was Friday, then tomorrow will be",
    "The opposite of hot is",
    "The planets of the solar system are:",
    "My favorite color is",
    "If 5*x + 3 = 13, then x is",
)
# What published runs were trained and measured on; validation as upstream's.
_HUB = TasksConfig(source="hub", toy=None)
_CHAT_VALIDATION = (
    MixtureEntry(task="test"),
    MixtureEntry(task="mmlu", split="test", rows=5_200),
    MixtureEntry(task="gsm8k", split="test", rows=420),
)
_EVERYTHING = EvaluateConfig(core_max_problems=None, prompts=_BASE_PROMPTS)
_QUESTIONS = ("Hello! How are you?", "What is the capital of France?")


def model_shape(
    depth: int, *, vocab_size: int, sequence_len: int, width_per_layer: int = 64, head_dim: int = 128
) -> ModelConfig:
    """Derive the transformer's shape from its depth: 64 channels a layer, heads of at most 128."""
    n_embd = depth * width_per_layer
    n_head = max(1, -(-n_embd // head_dim))
    return ModelConfig(
        sequence_len=sequence_len,
        vocab_size=vocab_size,
        n_layer=depth,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
    )


def toy(depth: int = 4) -> Recipe:
    """The built-in world: no downloads, a CPU, a few minutes."""
    vocab_size = 768
    world = ToyWorldConfig()
    questions = ("Hello!", "What is 3 plus 4?")
    tasks = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "functions", "smalltalk")
    return Recipe(
        name="toy",
        depth=depth,
        corpus=CorpusConfig(source="toy", train_shards=2, toy=world),
        tasks=TasksConfig(source="toy", toy=world),
        tokenizer=TokenizerConfig(vocab_size=vocab_size, train_shards=1, max_chars=2_000_000),
        pretrain=PretrainConfig(
            model=model_shape(
                depth, vocab_size=vocab_size, sequence_len=256, width_per_layer=32, head_dim=32
            ),
            batch_tokens=16 * 256,
            steps=150,
            warmdown_ratio=0.3,
            eval_every=50,
            eval_tokens=32 * 256,
            sample_every=100,
            prompts=("The capital of",),
            documents_apart=True,
        ),
        midtrain=MidtrainConfig(
            mixture=tuple(MixtureEntry(task=t, rows=1500) for t in tasks),
            batch_tokens=16 * 256,
            eval_every=50,
            sample_every=100,
            prompts=questions,
        ),
        sft=SftConfig(
            mixture=tuple(MixtureEntry(task=t, rows=600) for t in tasks),
            init_lr_frac=0.2,
            batch_rows=32,
            eval_every=50,
            sample_every=100,
            prompts=questions,
        ),
        evaluate=EvaluateConfig(
            max_problems=100, core_max_problems=100, max_new_tokens=64, bpb_tokens=64 * 256
        ),
        publish=PublishConfig(title="nanochat toy", datasets=("built-in toy world",)),
    )


def laptop(depth: int = 4) -> Recipe:
    """Real English text on a CPU: about an hour on two cores."""
    vocab_size = 4096
    return Recipe(
        name="laptop",
        depth=depth,
        corpus=CorpusConfig(source=FINEWEB_EDU, revision="main", train_shards=1, val_shard="1822"),
        tasks=TasksConfig(source="toy"),
        tokenizer=TokenizerConfig(vocab_size=vocab_size, train_shards=1, max_chars=50_000_000),
        pretrain=PretrainConfig(
            model=model_shape(
                depth, vocab_size=vocab_size, sequence_len=512, width_per_layer=48, head_dim=64
            ),
            batch_tokens=16 * 512,
            steps=600,
            eval_every=50,
            eval_tokens=32 * 512,
            sample_every=150,
            prompts=_BASE_PROMPTS[:3],
        ),
        midtrain=MidtrainConfig(batch_tokens=16 * 512, eval_every=50, sample_every=100, prompts=_QUESTIONS),
        sft=SftConfig(batch_rows=32, init_lr_frac=0.1, eval_every=100, sample_every=200, prompts=_QUESTIONS),
        evaluate=EvaluateConfig(
            max_problems=50,
            core_max_problems=20,
            max_new_tokens=96,
            bpb_tokens=64 * 512,
            prompts=_BASE_PROMPTS[:5],
        ),
        publish=PublishConfig(title="nanochat laptop"),
    )


_ON_GPUS = ComputeConfig(precision="bfloat16", compile=True)
_OF_ALL_LENGTHS = ComputeConfig(precision="bfloat16")  # rows of many lengths would each be compiled anew


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
        tasks=_HUB,
        tokenizer=TokenizerConfig(
            vocab_size=vocab_size, train_shards=tokenizer_shards, max_chars=tokenizer_shards * 250_000_000
        ),
        pretrain=PretrainConfig(
            compute=_ON_GPUS,
            model=model,
            optimizer=OptimizerConfig(),
            batch_tokens=batch_tokens,
            steps=max(1, TOKENS_PER_PARAMETER * parameter_count(model) // batch_tokens),
            prompts=_BASE_PROMPTS,
        ),
        midtrain=MidtrainConfig(
            compute=_ON_GPUS,
            mixture=(MixtureEntry(task="smoltalk"), MixtureEntry(task="mmlu"), MixtureEntry(task="gsm8k")),
            validation=_CHAT_VALIDATION,
            optimizer=unclipped,
            batch_tokens=batch_tokens,
            prompts=_QUESTIONS,
        ),
        sft=_sft(unclipped),
        evaluate=_EVERYTHING,
        publish=PublishConfig(title=f"nanochat d{depth}", datasets=_DATA_SETS),
    )


def _sft(optimizer: OptimizerConfig) -> SftConfig:
    """Return the published fine-tuning: 20,843 rows."""
    answers = (
        MixtureEntry(task="arc_easy"),
        MixtureEntry(task="arc_challenge"),
        MixtureEntry(task="gsm8k"),
        MixtureEntry(task="smoltalk", rows=10_000),
    )
    return SftConfig(
        mixture=answers,
        validation=(MixtureEntry(task="test", rows=3_200),),
        optimizer=optimizer,
        compute=_OF_ALL_LENGTHS,
        prompts=_QUESTIONS,
    )


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
        # 4.8 characters a token, and a tenth more than is read; the last shard of the corpus validates.
        corpus=CorpusConfig(
            source=CLIMBMIX,
            revision="main",
            train_shards=min(6_542, max(8, math.ceil(1.1 * 4.8 * tokens / 250e6))),
            val_shard="6542",
        ),
        tasks=_HUB,
        tokenizer=TokenizerConfig(vocab_size=model.vocab_size, train_shards=8),
        pretrain=PretrainConfig(
            compute=_ON_GPUS,
            model=model,
            optimizer=_optimizer_2026(scaling.lr_factor, scaling.weight_decay),
            batch_tokens=scaling.batch_tokens,
            steps=scaling.steps,
            warmup_steps=min(40, scaling.steps),
            warmdown_ratio=0.65,
            final_lr_frac=0.05,
            eval_tokens=80 * 524_288,
            prompts=_BASE_PROMPTS,
        ),
        midtrain=MidtrainConfig(
            compute=_ON_GPUS,
            mixture=mixture,
            validation=_CHAT_VALIDATION,
            optimizer=_optimizer_2026(0.8 * scaling.lr_factor),
            batch_tokens=scaling.batch_tokens,
            prompts=_QUESTIONS,
        ),
        sft=_sft(_optimizer_2026(scaling.lr_factor)),
        evaluate=_EVERYTHING,
        publish=PublishConfig(
            title=f"nanochat 2026-d{depth}", datasets=("karpathy/climbmix-400b-shuffle", *_DATA_SETS[1:])
        ),
    )


def _preset_2026(depth: int) -> Callable[..., Recipe]:
    def preset(depth: int = depth) -> Recipe:
        return _2026(depth)

    preset.__doc__ = f"Pretraining of July 2026 with {depth} layers: 8xH100."
    return preset


PRESETS: dict[str, Callable[..., Recipe]] = {
    "toy": toy,
    "laptop": laptop,
    "d20": d20,
    "d20-spelling": d20_spelling,
    "d32": d32,
    **{f"2026-d{depth}": _preset_2026(depth) for depth in range(12, 27, 2)},
}


def find(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a preset with `field=value` overrides applied; `depth` re-derives the rest first.

    Raises ConfigError for an unknown preset, an unknown field (naming the nearest) or a bad value.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no recipe {name!r}", hint=nearest(name, PRESETS, "recipes"))
    pairs = [split(text) for text in overrides]
    dial = [value for path, value in pairs if path == "depth"]
    base = _derive(name, read(dial[-1])) if dial else PRESETS[name]()
    return apply(base, [(path, value) for path, value in pairs if path != "depth"])


def _derive(name: str, depth: object) -> Recipe:
    """Turn a preset's dial; raise ConfigError with the nearest depths that work."""
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= DEEPEST:
        raise ConfigError(
            f"depth is {depth!r}, not a whole number of at least 1 and at most {DEEPEST}",
            hint=f"recipe {name!r} has depth {PRESETS[name]().depth}",
        )
    recipe = _try(name, depth)
    if isinstance(recipe, Recipe):
        return recipe
    near = [next((d for d in side if isinstance(_try(name, d), Recipe)), None) for side in _sides(depth)]
    ways = " or ".join(f"-o depth={d}" for d in near if d is not None)
    raise ConfigError(f"depth is {depth}, which gives no model: {explain(recipe)}", hint=f"use {ways}")


def _try(name: str, depth: int) -> Recipe | ValidationError:
    try:
        return PRESETS[name](depth)
    except ValidationError as error:
        return error


def _sides(depth: int) -> tuple[range, range]:
    return range(depth - 1, 0, -1), range(depth + 1, DEEPEST + 1)
