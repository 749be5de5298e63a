"""Rows of tokens in one long row without padding, each beginning that rows share only once.

Rows come in families, such as the choices of one question: what a family's rows have in common at their
beginning is its stem, and what all families have in common (the header of a chat) comes before all stems.
Linear maps see each token once; only attention works on padded blocks, with families of similar length in one
block. Give families sorted by length, so that blocks hold little padding. Each row is one text: a document's
first token inside a row does not end what tokens after it see.

Shapes: N tokens in all, R rows of a block, T queries, S keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Row = Sequence[int]
BATCH_TOKENS = 4_096
_PADDED = 1.25  # times the scores that a block's rows have are computed with padding before it is split
_SHARED, _NOBODY = -1, -2  # owners of tokens that all of a family's rows see, and of padding


@dataclass(frozen=True)
class PaddedBlock:
    """Queries and keys of one attention call, as places in the long row; queries may be part of the keys."""

    queries: Tensor  # (R, T)
    keys: Tensor  # (R, S)
    results: Tensor  # of the R * T queries those whose result is used,
    places: Tensor  # and where in the long row these results belong
    seen: Tensor | None  # (R, T, S), None: queries are the keys, and each sees those up to itself
    distance: Tensor | None  # (R, T, S), in tokens of the text
    _biases: dict[int | None, Tensor] = field(default_factory=dict)

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to scores (R, 1, T, S): minus infinity for what is not seen."""
        if self.seen is None or self.distance is None:
            return None
        if window not in self._biases:
            seen = self.seen if window is None else self.seen & (self.distance <= window)
            zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._biases[window] = zeros.masked_fill_(~seen, -torch.inf)[:, None]
        return self._biases[window]


class PackedRows:
    """The long row, where each row's tokens are in it, and who sees whom."""

    def __init__(self, families: Sequence[Sequence[Row]], device: torch.device | str = "cpu") -> None:
        """Pack at least one family of at least one row each; no row may be empty."""
        packing = _Packing(families)
        self.places = packing.places
        """For each family and row, where in the long row each of its tokens is."""
        self.longest = max(packing.positions) + 1
        self.tokens = torch.tensor([packing.tokens], device=device)  # (1, N)
        self.positions = torch.tensor(packing.positions, device=device)  # (N,), in its own row
        self.previous = torch.tensor(packing.previous, device=device)  # (N,), -1 before a row's first
        self.blocks = [_block(group, packing.positions, device) for group in _groups(packing.calls)]

    def before(self, x: Tensor) -> Tensor:
        """Return for each token's x (1, N, C) that of the token before it, zeros before a row's first."""
        return x[:, self.previous.clamp_min(0)] * (self.previous >= 0)[:, None].to(x.dtype)


def packed_size(rows: Sequence[Row]) -> int:
    """Return how many tokens a family holds, its stem counted once."""
    stem = common_prefix(rows)
    return stem + sum(len(row) - stem for row in rows)


def packed_batches(sizes: Sequence[int], max_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Group indices of families of similar size into batches of about `max_tokens`, the largest first."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    batch: list[int] = []
    tokens = 0
    for i in order:
        if batch and tokens + sizes[i] > max_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += sizes[i]
    if batch:
        yield batch


def common_prefix(rows: Sequence[Row]) -> int:
    """Return how many tokens all rows begin with."""
    low, high = 0, min(map(len, rows), default=0)
    while low < high:  # by halves: comparing slices is quick, comparing tokens one by one is not
        middle = (low + high + 1) // 2
        head = rows[0][:middle]
        if all(row[:middle] == head for row in rows):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True)
class _Call:
    """One row of a block."""

    queries: list[int]
    keys: list[int]
    kept: int  # queries from this one on
    owners: list[int] | None = None  # of the keys; None: the queries are the keys
    query_owners: list[int] = field(default_factory=list)


class _Packing:
    """Lays out tokens: first what all families share, then each family's stem and the ends of its rows."""

    def __init__(self, families: Sequence[Sequence[Row]]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.previous: list[int] = []
        self.places: list[list[list[int]]] = []
        self.calls: list[_Call] = []
        head = common_prefix([row for rows in families for row in rows]) if len(families) > 1 else 0
        self._head = self._laid(families[0][0][:head], [])
        for rows in families:
            self._lay_family(rows)

    def _laid(self, tokens: Row, before: list[int]) -> list[int]:
        """Append tokens that follow what lies at `before`; return their places."""
        first = len(self.tokens)
        places = list(range(first, first + len(tokens)))
        self.tokens += tokens
        self.positions += range(len(before), len(before) + len(tokens))
        self.previous += [before[-1] if before else -1, *places][: len(tokens)]
        return places

    def _lay_family(self, rows: Sequence[Row]) -> None:
        head, length = self._head, common_prefix(rows)
        stem = self._laid(rows[0][len(head) : length], head)
        trunk = head + stem
        first = not self.places  # whose call also makes the results of the head
        if 0 < len(stem) < len(head) and not first:
            shared = [_SHARED] * len(trunk)
            self.calls.append(_Call(stem, trunk, 0, shared, [_SHARED] * len(stem)))
        elif stem or (first and head):
            # A short head is attended from anew: causal attention without a mask is the quicker one.
            self.calls.append(_Call(trunk, trunk, 0 if first else len(head)))
        ends = [self._laid(row[length:], trunk) for row in rows]
        queries = [place for end in ends for place in end]
        if queries:
            owners = [number for number, end in enumerate(ends) for _ in end]
            self.calls.append(_Call(queries, trunk + queries, 0, [_SHARED] * len(trunk) + owners, owners))
        self.places.append([trunk + end for end in ends])


def _groups(calls: Sequence[_Call]) -> Iterator[list[_Call]]:
    """Put calls of similar size together so that padding stays small; with and without owners do not mix."""
    order = sorted(
        calls, key=lambda call: (call.owners is None, len(call.keys), len(call.queries)), reverse=True
    )
    group: list[_Call] = []
    real = widest = 0
    for call in order:
        real += len(call.keys) * len(call.queries)
        widest = max(widest, len(call.queries))
        padded = len(group[0].keys) * widest * (len(group) + 1) if group else 0
        if group and ((group[0].owners is None) != (call.owners is None) or padded > _PADDED * real):
            yield group
            group = []
        if not group:
            real, widest = len(call.keys) * len(call.queries), len(call.queries)
        group.append(call)
    yield group


def _block(calls: Sequence[_Call], positions: Sequence[int], device: torch.device | str) -> PaddedBlock:
    """Pad calls at their ends to a common size."""
    keys = _padded([call.keys for call in calls])
    queries = _padded([call.queries for call in calls])
    kept = torch.zeros(queries.shape, dtype=torch.bool)
    for row, call in enumerate(calls):
        kept[row, call.kept : len(call.queries)] = True
    seen = distance = None
    if calls[0].owners is not None:
        owner = _padded([call.owners or [] for call in calls], _NOBODY)[:, None, :]
        asking = _padded([call.query_owners for call in calls], _SHARED)[:, :, None]
        where = torch.tensor(positions)
        distance = where[queries][:, :, None] - where[keys][:, None, :]
        seen = (distance >= 0) & ((owner == _SHARED) | (owner == asking))
        # A padded query sees one key, since a softmax over nothing is not a number.
        seen[..., 0] |= ~kept
        seen, distance = seen.to(device), distance.to(device)
    places = queries[kept].to(device)
    results = kept.flatten().nonzero()[:, 0].to(device)
    return PaddedBlock(queries.to(device), keys.to(device), results, places, seen, distance)


def _padded(rows: Sequence[Sequence[int]], filler: int = 0) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
