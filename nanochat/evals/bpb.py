"""Bits per byte: a language model's loss in a unit that does not depend on the tokenizer.

The nats of all counted targets over ln 2 times their bytes. Not counted: ignored targets (-1) and targets
without bytes (special tokens). Which text is measured is the caller's choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanochat.config import IGNORED
from nanochat.model.gpt import GPT


def bits_per_byte(
    model: GPT,
    batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    token_bytes: npt.NDArray[np.int32],
) -> float:
    """Return bits per byte over batches of inputs and targets (B, T); infinite if no byte is counted."""
    return as_bits_per_byte(*nats_and_bytes(model, batches, token_bytes))


@torch.no_grad()
def nats_and_bytes(
    model: GPT,
    batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    token_bytes: npt.NDArray[np.int32],
) -> tuple[float, int]:
    """Return the sums that bits per byte are made of: sums of parts of the batches add up."""
    nats, size = 0.0, 0
    for inputs, targets in batches:
        x = torch.from_numpy(np.asarray(inputs, np.int64)).to(model.device)
        y = torch.from_numpy(np.asarray(targets, np.int64)).to(model.device)
        losses = model(x, y, loss_reduction="none").double().cpu().numpy()
        lengths = np.where(targets != IGNORED, token_bytes[np.maximum(targets, 0)], 0)
        nats += float(losses[lengths > 0].sum())
        size += int(lengths.sum())
    return nats, size


def as_bits_per_byte(nats: float, size: float) -> float:
    """Return nats over `size` bytes in bits per byte; infinite if there are none."""
    return nats / (math.log(2) * size) if size else math.inf
