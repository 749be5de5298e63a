"""Recipes: one dial (`depth`) from which the presets derive every number, and overrides by dotted name.

Presets are functions of depth, so that turning the dial derives everything anew; `find` returns one by
name, `override` changes single fields and explains what it cannot do. What the fields mean stands in
`nanochat.config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nanochat.config import (
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
from nanochat.model.flops import parameter_count

FINEWEB_EDU = "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/{revision}/shard_{index:05d}.parquet"

_BASE_PROMPTS = (
    "The capital of France is",
    "The chemical symbol of gold is",
    "If yesterday was Friday, then tomorrow will be",
    "The opposite of hot is",
    "The planets of the solar system are:",
)


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
    prompts = ("The capital of",)
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
            prompts=prompts,
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
    questions = ("Hello! How are you?", "What is the capital of France?")
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
        midtrain=MidtrainConfig(batch_tokens=16 * 512, eval_every=50, sample_every=100, prompts=questions),
        sft=SftConfig(batch_rows=32, init_lr_frac=0.1, eval_every=100, sample_every=200, prompts=questions),
        evaluate=EvaluateConfig(
            max_problems=50,
            core_max_problems=20,
            max_new_tokens=96,
            bpb_tokens=64 * 512,
            prompts=_BASE_PROMPTS,
        ),
        publish=PublishConfig(title="nanochat laptop"),
    )


def d20(depth: int = 20) -> Recipe:
    """The published result of October 2025: 8xH100, about four hours."""
    vocab_size = 65_536
    model = model_shape(depth, vocab_size=vocab_size, sequence_len=2048)
    batch_tokens = 524_288
    chat = (MixtureEntry(task="smoltalk"), MixtureEntry(task="mmlu"), MixtureEntry(task="gsm8k"))
    sft = (
        MixtureEntry(task="arc_easy"),
        MixtureEntry(task="arc_challenge"),
        MixtureEntry(task="gsm8k"),
        MixtureEntry(task="smoltalk", rows=10_000),
    )
    return Recipe(
        name=f"d{depth}",
        depth=depth,
        corpus=CorpusConfig(source=FINEWEB_EDU, revision="main", train_shards=239, val_shard="239"),
        tasks=TasksConfig(source="data", toy=None),
        tokenizer=TokenizerConfig(vocab_size=vocab_size, train_shards=8),
        pretrain=PretrainConfig(
            model=model,
            optimizer=OptimizerConfig(),
            batch_tokens=batch_tokens,
            steps=20 * parameter_count(model) // batch_tokens,
            prompts=_BASE_PROMPTS,
        ),
        midtrain=MidtrainConfig(mixture=chat, batch_tokens=batch_tokens),
        sft=SftConfig(mixture=sft),
        evaluate=EvaluateConfig(prompts=_BASE_PROMPTS),
        publish=PublishConfig(title=f"nanochat d{depth}", datasets=("HuggingFaceFW/fineweb-edu",)),
    )


PRESETS: dict[str, Callable[..., Recipe]] = {"toy": toy, "laptop": laptop, "d20": d20}


def find(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a preset with `field=value` overrides applied; `depth` re-derives the rest first.

    Raises ConfigError for an unknown preset, an unknown field (naming the nearest) or a bad value.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no recipe {name!r}", hint=_nearest(name, PRESETS, "recipes"))
    pairs = [_split(text) for text in overrides]
    dial = [value for path, value in pairs if path == "depth"]
    if dial and (not isinstance(dial[-1], int) or isinstance(dial[-1], bool) or dial[-1] < 1):
        raise ConfigError(f"depth is {dial[-1]!r}, not a whole number of at least 1")
    base = PRESETS[name](*dial[-1:])
    return _apply(base, [(path, value) for path, value in pairs if path != "depth"])


def field_names(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted name, value, help text) of every field, depth first."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, " ".join((info.description or "").split())


def _split(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"override {text!r} has no '='", hint="write it as section.field=value, such as sft.epochs=2"
        )
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of override {text!r} cannot be read: {error}") from None


def _apply(recipe: Recipe, pairs: Sequence[tuple[str, Any]]) -> Recipe:
    data = recipe.model_dump()
    known = {name for name, _, _ in field_names(recipe)}
    for path, value in pairs:
        if path not in known:
            raise ConfigError(
                f"recipe {recipe.name!r} has no field {path!r}", hint=_nearest(path, known, "fields")
            )
        *sections, leaf = path.split(".")
        target = data
        for section in sections:
            target = target[section]
        target[leaf] = value
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise ConfigError(
            problems, hint=f"`nanochat show {recipe.name}` lists every field with its value"
        ) from None


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    given = "" if isinstance(value, dict | BaseModel) else f" is {value!r}"
    return f"{where}{given}: {message}"


def _nearest(name: str, known: Any, what: str) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known {what}: {', '.join(names)}"
