"""What a model is: its shape, files and tokenizer, and what each kind of weights costs in memory and quality.

Kinds of weights are measured against float32 on text that the model was not trained on. Nothing is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from flows.models.find import folder_of, open_model
from flows.models.held_out_text import HeldOut, held_out
from flows.store import Record, Store
from nanochat.config import ModelConfig
from nanochat.evals.weight_cost import Predictions, predictions
from nanochat.formats.folder import find_published
from nanochat.formats.published import Choice
from nanochat.model.flops import parameter_counts
from nanochat.model.gpt import GPT
from nanochat.model.inference_weights import kinds_on, weight_bytes
from nanochat.tokenizer.tokenizer import Tokenizer

_OPERATIONS = 2e12  # of one kind's products: about 15 seconds on two cores in float32
_MOST_TOKENS = 16_384
_WEIGHT_FILE = re.compile(r"model.*\.(safetensors|pt)")


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model as its files have it."""

    name: str
    config: ModelConfig
    parameters: dict[str, int]  # by kind
    files: dict[str, int]  # those of weights, with their sizes
    step: int
    tokenizer: Tokenizer
    record: Record | None  # None: a published folder


@dataclass(frozen=True, kw_only=True)
class WeightsCost:
    """What one kind of weights costs."""

    weights: str
    memory_bytes: int
    bits_per_byte: float
    flipped: int  # tokens of the text in whose place another is the likeliest than with float32


def describe(store: Store, ref: str, choice: Choice) -> Description:
    """Read a model and return what it is; raises as `open_model` does."""
    folder = folder_of(ref)
    record = None if folder else store.resolve(ref)
    published = open_model(store, ref, choice)
    config = published.model.config
    return Description(
        name=f"{record.stage}/{record.key[:12]}" if record else ref,
        config=config,
        parameters={str(kind): count for kind, count in parameter_counts(config).items()},
        files=_files_in(find_published(folder, choice).weights) if folder else _files_of(record),
        step=published.step,
        tokenizer=published.tokenizer,
        record=record,
    )


def text_for(store: Store, model: Description, file: Path | None, tokens: int | None) -> HeldOut:
    """Return the text to measure a model on: `tokens` of it, or as many as take some seconds.

    Raises DataError for a file that is missing or not text, StoreError if the validation text is damaged.
    """
    multiplied = model.parameters["matrices"] + model.parameters["lm_head"]
    affordable = max(1, min(_MOST_TOKENS, int(_OPERATIONS / (2 * multiplied))))
    length = model.config.sequence_len
    return held_out(store, model.record, file, model.tokenizer, length=length, tokens=tokens or affordable)


def weights_costs(
    model: Description, opened: Callable[[str], GPT], text: HeldOut, device: torch.device
) -> Iterator[WeightsCost]:
    """Yield what each kind of weights costs, float32 first; `opened` gives the model with one kind."""
    sizes = model.tokenizer.token_bytes()
    reference: Predictions | None = None
    for kind in kinds_on(device):
        gpt = opened(kind)
        memory = weight_bytes(gpt)
        found = predictions(gpt, text.rows, sizes)
        del gpt  # before the next is read
        reference = reference or found
        flipped, loss = found.flipped(reference), found.bits_per_byte
        yield WeightsCost(weights=kind, memory_bytes=memory, bits_per_byte=loss, flipped=flipped)


def _files_of(record: Record | None) -> dict[str, int]:
    return (
        {}
        if record is None
        else {file.path: file.size for file in record.files if _WEIGHT_FILE.fullmatch(file.path)}
    )


def _files_in(paths: tuple[Path, ...]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in paths}
