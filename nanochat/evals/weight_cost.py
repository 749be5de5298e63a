"""What another kind of weights changes in what a model predicts: its loss, and the tokens it finds likeliest.

Models of the same shape read the same text, each token after the true ones before it, so that one changed
token changes no other. Which text is read and where the models come from is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nanochat.evals.bpb import as_bits_per_byte
from nanochat.model.gpt import GPT
from nanochat.model.packed_rows import PackedRows, packed_batches

_TOGETHER = 2_048  # tokens that are read together,
_AT_ONCE = 256  # and those of them whose logits are in memory


@dataclass(frozen=True)
class Predictions:
    """What a model made of a text."""

    nats: float
    size: int  # bytes that were counted
    likeliest: npt.NDArray[np.int64]  # token of each position

    @property
    def bits_per_byte(self) -> float:
        """Return the loss; infinite if no byte was counted."""
        return as_bits_per_byte(self.nats, self.size)

    def flipped(self, reference: Predictions) -> int:
        """Return at how many positions another token is the likeliest."""
        return int((self.likeliest != reference.likeliest).sum())


def plain_text() -> str:
    """Return a short English text, written for this purpose: no model was trained on it."""
    return Path(__file__).with_name("plain_text.txt").read_text(encoding="utf-8")


def rows_of(documents: Iterable[Sequence[int]], length: int, tokens: int) -> list[list[int]]:
    """Cut documents into rows of at most `length` predicted tokens, until there are `tokens` of these.

    Each token but a document's first is predicted once: a row begins with the token that the one before
    ended with.
    """
    rows, left = list[list[int]](), tokens
    for document in documents:
        for start in range(0, len(document) - 1, length):
            row = document[start : start + min(length, left) + 1]
            rows.append([int(token) for token in row])
            left -= len(row) - 1
            if not left:
                return rows
    return rows


@torch.inference_mode()
def predictions(model: GPT, rows: Sequence[Sequence[int]], token_bytes: npt.NDArray[np.int32]) -> Predictions:
    """Return what a model predicts in rows; tokens without bytes (special ones) count in no loss."""
    nats, size, likeliest = 0.0, 0, np.empty(sum(len(row) - 1 for row in rows), np.int64)
    starts = np.cumsum([0, *(len(row) - 1 for row in rows)])
    for batch in packed_batches([len(row) - 1 for row in rows], _TOGETHER):
        losses, found = _read(model, [rows[i] for i in batch])
        lengths = token_bytes[np.concatenate([rows[i][1:] for i in batch])]
        nats += float(losses[lengths > 0].sum())
        size += int(lengths.sum())
        likeliest[np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])] = found
    return Predictions(nats, size, likeliest)


def _read(model: GPT, rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the loss in nats at each position of some rows, one after the other, and the likeliest token."""
    packed = PackedRows([[row[:-1]] for row in rows], model.device)
    places = [place for [family] in packed.places for place in family]
    x = model.hidden_packed(packed)[torch.tensor(places, device=model.device)]  # (N, C)
    targets = torch.tensor([token for row in rows for token in row[1:]], device=model.device)
    losses, likeliest = zip(*_chunks(model, x, targets), strict=True)
    return torch.cat(losses).double().cpu().numpy(), torch.cat(likeliest).cpu().numpy()


def _chunks(model: GPT, x: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    for start in range(0, len(x), _AT_ONCE):
        part, wanted = x[start : start + _AT_ONCE], targets[start : start + _AT_ONCE]
        logits = model.logits(part)  # (n, V)
        yield F.cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1)
