"""The short training that a GPU and a CPU share: tokens, batches, model and schedule, and the CPU's losses.

`infra/gpu/prepare.py` fills a folder with them, `gpu_training.py` reads it on a machine that has neither text
nor tokenizer. Rows are windows of one long run of tokens, in an order drawn anew for each epoch, so that a
batch is a function of its step.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from nanochat.config import ComputeConfig, ModelConfig, PretrainConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.schedules import pretrain_schedule
from nanochat.train.loop import Batch, StepResult, TrainingPlan
from nanochat.train.state import TrainState

_TOKENS, _CURVE = "tokens.npz", "curve.json"
Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained: `steps` in all, of which the first `compared` at most are taken on a CPU too."""

    depth: int
    length: int
    rows: int
    steps: int
    compared: int
    val_rows: int


# Steps of 8,192 tokens: on two idle cores 60 of them take 25 minutes. All 4,000 read the tokens 2.7 times.
FULL = Size(depth=8, length=1024, rows=8, steps=4000, compared=200, val_rows=256)
TINY = Size(depth=2, length=32, rows=8, steps=24, compared=12, val_rows=16)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Tokens to train on and to validate with, and the bytes of each token; special ones have none."""

    train: Tokens
    val: Tokens
    vocabulary: tuple[bytes, ...]

    def save(self, folder: Path) -> None:
        """Write one file into the folder."""
        lengths = np.array([len(token) for token in self.vocabulary], np.uint16)
        blob = np.frombuffer(b"".join(self.vocabulary), np.uint8)
        np.savez(folder / _TOKENS, train=self.train, val=self.val, blob=blob, lengths=lengths)

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Read what `save` wrote."""
        with np.load(folder / _TOKENS) as held:
            blob, ends = held["blob"].tobytes(), np.cumsum(held["lengths"], dtype=np.int64)
            starts = np.concatenate([[0], ends[:-1]])
            vocabulary = tuple(blob[a:b] for a, b in zip(starts, ends, strict=True))
            return cls(train=held["train"], val=held["val"], vocabulary=vocabulary)

    @classmethod
    def made_up(cls, size: Size) -> Text:
        """Return tokens of a vocabulary of 64, of which most follow from the one before."""
        rng = np.random.default_rng(5)
        tokens = rng.integers(0, 64, size.rows * size.length * 12)
        follows = np.flatnonzero(rng.random(len(tokens)) < 0.8)
        for at in follows[follows > 0]:
            tokens[at] = (5 * tokens[at - 1] + 3) % 64
        cut = len(tokens) - (size.val_rows * size.length + 1)
        train, val = np.split(tokens.astype(np.uint16), [cut])
        return cls(train=train, val=val, vocabulary=tuple(bytes([64 + i]) for i in range(64)))

    @property
    def token_bytes(self) -> npt.NDArray[np.int32]:
        """Return the length of each token in bytes."""
        return np.array([len(token) for token in self.vocabulary], np.int32)


@dataclass
class Curve:
    """Losses and gradient norms of the first steps on a CPU in float32, and where they started."""

    start: float  # `fingerprint` of the initial weights
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)

    def add(self, result: StepResult) -> None:
        """Keep what a step measured."""
        self.losses.append(result.loss)
        self.norms.append(result.grad_norm)

    def cut(self, steps: int) -> None:
        """Forget what came after the first steps."""
        del self.losses[steps:], self.norms[steps:]

    def save(self, folder: Path) -> None:
        """Write one file into the folder."""
        part = folder / f"{_CURVE}.part"
        part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        part.rename(folder / _CURVE)

    @classmethod
    def load(cls, folder: Path) -> Curve:
        """Read what `save` wrote."""
        return cls(**json.loads((folder / _CURVE).read_text(encoding="utf-8")))


def has_tokens(folder: Path) -> bool:
    """Return whether a folder holds a text."""
    return (folder / _TOKENS).exists()


def has_curve(folder: Path) -> bool:
    """Return whether a folder holds a CPU's losses."""
    return (folder / _CURVE).exists()


def config_for(size: Size, text: Text, precision: str, *, compiled: bool) -> PretrainConfig:
    """Return the run as a recipe would set it."""
    width = 64 * size.depth
    heads = max(1, width // 128)
    model = ModelConfig(
        sequence_len=size.length,
        vocab_size=len(text.vocabulary),
        n_layer=size.depth,
        n_head=heads,
        n_kv_head=heads,
        n_embd=width,
    )
    compute = ComputeConfig.model_validate({"precision": precision, "compile": compiled})
    return PretrainConfig(
        model=model, compute=compute, batch_tokens=size.rows * size.length, steps=size.steps
    )


def new_state(config: PretrainConfig, device: str) -> TrainState:
    """Return the run before its first step, with the same weights on every device."""
    with torch.device(device):
        model = GPT(config.model)
    model.init_weights(torch.Generator().manual_seed(config.seed))
    model.precision = getattr(torch, config.compute.precision)
    backend = "inductor" if device == "cuda" else "aot_eager"  # of a CPU: a dry run
    compiled = cast(GPT, torch.compile(model, backend=backend)) if config.compute.compile else None
    return TrainState(model, ModelOptimizer(model, config.optimizer), compiled=compiled)


def fingerprint(model: GPT) -> float:
    """Return a sum that differs between weights drawn differently."""
    sums = [parameter.detach().double().abs().sum().cpu() for parameter in model.parameters()]
    return float(torch.stack(sums).sum())


def plan_for(config: PretrainConfig, text: Text) -> TrainingPlan:
    """Return what each step does."""
    length, schedule = config.model.sequence_len, pretrain_schedule(config)
    rows = config.batch_tokens // length
    windows = (len(text.train) - 1) // length

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([config.seed, epoch]).permutation(windows)

    def batch(step: int, part: slice) -> Batch:
        places = (divmod(step * rows + row, windows) for row in range(rows)[part])
        return cut([order(epoch)[place] for epoch, place in places], text.train, length)

    return TrainingPlan(
        steps=config.steps,
        batch_rows=rows,
        longest=length,
        batch=batch,
        lr_multiplier=schedule.lr_multiplier,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )


def val_batches(text: Text, size: Size) -> Iterator[Batch]:
    """Yield rows of the validation tokens in batches of a training step's size."""
    windows = min(size.val_rows, (len(text.val) - 1) // size.length)
    for begin in range(0, windows, size.rows):
        yield cut(range(begin, min(begin + size.rows, windows)), text.val, size.length)


def cut(windows: list[int] | range, tokens: Tokens, length: int) -> Batch:
    """Return inputs and targets (B, T) of some windows."""
    rows = np.stack([tokens[w * length : (w + 1) * length + 1] for w in windows]).astype(np.int64)
    return rows[:, :-1].copy(), rows[:, 1:].copy()
