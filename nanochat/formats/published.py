"""What a published folder holds, in either format, and the small JSON files that describe it.

Plain data and one reader; where the files are and what their fields are called is known to the two formats
(`nanochat_folder`, `transformers_folder`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from nanochat.config import ModelConfig
from nanochat.errors import DataError
from nanochat.model.flops import parameter_count

if TYPE_CHECKING:
    from torch import Tensor

    from nanochat.model.gpt import GPT
    from nanochat.tokenizer.tokenizer import Tokenizer

FOLDERS = {
    "sft": "chatsft_checkpoints",
    "rl": "chatrl_checkpoints",
    "mid": "mid_checkpoints",
    "base": "base_checkpoints",
}
"""Upstream's names of the trainings that publish checkpoints, and of their folders; most finished first."""
SOURCES = tuple(FOLDERS)
WEIGHT_TYPES = ("float32", "bfloat16", "float16", "float64")
_LARGEST_JSON = 16 * 2**20
_LARGEST_NUMBER = 2**24
_LONGEST_CONTEXT = 131_072  # a conversation of that length fills rotary tables and the cache of keys


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which checkpoint of a folder is meant; None: the default."""

    source: str | None = None
    tag: str | None = None
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The files of one checkpoint."""

    format: Literal["nanochat", "transformers"]
    weights: tuple[Path, ...]
    description: Path
    tokenizer: Path
    step: int = 0
    source: str | None = None  # which training made it, where the folder says so
    tag: str | None = None
    others: int = 0  # checkpoints beside it that were not chosen


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model with its tokenizer, and what is known about it."""

    model: GPT
    tokenizer: Tokenizer
    step: int = 0
    source: str = SOURCES[0]
    results: Mapping[str, Any] = field(default_factory=dict)  # losses, scores, settings


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of moderate size; raise DataError naming the file."""
    try:
        if not path.is_file():
            raise DataError(
                f"{path} is missing", hint="weights, their description and a tokenizer are needed"
            )
        if path.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes; at most {_LARGEST_JSON:,} are read")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, not an object")
    return found


def model_config(fields: Mapping[str, Any], source: Path) -> ModelConfig:
    """Return the shape of a model that a file describes; raise DataError naming file and field."""
    for name, value in fields.items():  # before anything is counted up to them
        if isinstance(value, int) and value > _LARGEST_NUMBER:
            raise DataError(f"{source}: {name} is {value:,}; at most {_LARGEST_NUMBER:,} is read")
    try:
        config = ModelConfig.model_validate(dict(fields), strict=True)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'model'} is {str(e['input'])[:60]}: {e['msg']}"
            for e in error.errors()[:3]
        )
        raise DataError(f"{source} does not describe a model that can be built: {problems}") from error
    if config.sequence_len > _LONGEST_CONTEXT:
        raise DataError(
            f"{source}: sequence_len is {config.sequence_len:,}; at most {_LONGEST_CONTEXT:,} is read"
        )
    return config


def other_type(weights: Path, name: str, kind: str) -> DataError:
    """Return the error for a tensor of a type that is not read, such as an 8-bit one."""
    return DataError(
        f"{weights}: {name} is of type {kind}; weights are {', '.join(WEIGHT_TYPES)}",
        hint="load the model where it came from, convert its weights to bfloat16 and save it again",
    )


def check_weights(config: ModelConfig, state: Mapping[str, Tensor], weights: Path, description: Path) -> None:
    """Raise DataError where weights and description cannot belong together, before a model is built."""
    types = {name: str(weight.dtype).removeprefix("torch.") for name, weight in state.items()}
    odd = next((name for name, kind in types.items() if kind not in WEIGHT_TYPES), None)
    if odd is not None:
        raise other_type(weights, odd, types[odd])
    parts = [name.split(".") for name in state if name.startswith("transformer.h.")]
    layers = {int(part[2]) for part in parts if part[2].isdecimal()}
    if len(layers) != config.n_layer:  # before anything is counted layer by layer
        raise DataError(
            f"{weights} has {len(layers)} layers, {description.name} says {config.n_layer}",
            hint="take both files from the same checkpoint",
        )
    held, wanted = sum(weight.numel() for weight in state.values()), parameter_count(config)
    if wanted > 2 * held + 4096:
        raise DataError(
            f"{description} describes {wanted:,} parameters, {weights.name} holds {held:,}",
            hint="take both files from the same checkpoint",
        )


def check_vocabulary(published: Published, found: CheckpointFiles) -> Published:
    """Return what was read; raise DataError where the tokenizer is another model's."""
    model, tokenizer = published.model.config.vocab_size, published.tokenizer.vocab_size
    if model != tokenizer:
        raise DataError(
            f"{found.tokenizer}: the tokenizer has {tokenizer} tokens, the model {model}",
            hint="add the tokenizer that the model was trained with",
        )
    return published
