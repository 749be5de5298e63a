"""Which keys a query sees: positions `first[t] <= s <= t`, and nothing else.

A causal mask, a sliding window and packed documents are all this one interval, and `first` never falls along
a row. So each block of queries sees one range of keys, each key is seen by one range of queries, and a kernel
skips what lies outside. Letters: B rows, T positions, t a query's position, s a key's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_starts(documents: Tensor) -> Tensor:
    """Return for each position where its document begins, (B, T) int32: the `lo` of `attention`.

    `documents` (B, T): boolean, True at a document's first token; or integers, each token's document.
    A row begins a document whether marked or not.
    """
    begins = documents
    if documents.dtype is not torch.bool:
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    positions = torch.arange(begins.size(1), dtype=torch.int32, device=begins.device)
    return torch.where(begins, positions, 0).cummax(1).values.int()


def first_keys(length: int, window: int | None, lo: Tensor | None, device: torch.device) -> Tensor:
    """Return the first key that each query sees, (B or 1, T) int32; never a later one than its own."""
    positions = torch.arange(length, dtype=torch.int32, device=device)[None]
    first = torch.zeros_like(positions) if window is None else (positions - window).clamp_(min=0)
    return first if lo is None else torch.minimum(torch.maximum(first, lo), positions)


def end_queries(first: Tensor) -> Tensor:
    """Return for each key the first query after it that does not see it, (B, T) int32."""
    positions = torch.arange(first.size(1), dtype=torch.int32, device=first.device)
    return torch.searchsorted(first, positions.expand_as(first).contiguous(), right=True, out_int32=True)


def visible_pairs(length: int, window: int | None) -> int:
    """Return how many (query, key) pairs of one row are visible, documents aside."""
    left = length - 1 if window is None else min(window, length - 1)
    return length * (left + 1) - left * (left + 1) // 2
