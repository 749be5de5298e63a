"""What a model keeps of the tokens it has already seen, for generation one token at a time.

Keys and values of every layer and, for architecture 2026, the last token's embedding. Rows may hold texts of
different lengths: a token's slot is its position in its text. Texts come in either by `GPT.forward`, which
appends to all rows, or packed (`Filling`), which puts whole texts into some rows in place of what they held.
Slots are allocated in blocks and copied to a larger block when they run out. Not here: sampling and stop
rules (`nanochat.chat.engine`).

Shapes: B rows, K key/value heads, T new positions, S slots in reach of them, D head dimension, C channels,
N tokens of packed texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.config import ModelConfig

_BLOCK = 256  # slots; growing in blocks keeps copies rare without holding much more than is used


class KVCache:
    """The cache of one batch: `GPT.forward` appends to it, `GPT.read` fills some of its rows."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int = 0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Allocate room for `capacity` tokens per row."""
        self.lengths = [0] * rows  # tokens that each row holds, in every layer
        head_dim = config.n_embd // config.n_head
        shape = (config.n_layer, 2, rows, config.n_kv_head, _rounded(capacity), head_dim)
        # Slots that a short row has not filled are multiplied by 0, which makes no number of what is not one.
        self._slots = torch.zeros(shape, device=device, dtype=dtype)
        self._last_embedding: Tensor | None = None  # (B, 1, C)
        # Asked for by every layer of a step, and to be copied to the device once.
        self._positions: tuple[tuple[tuple[int, ...], int], Tensor] | None = None

    @property
    def rows(self) -> int:
        """Return the number of rows B."""
        return self._slots.size(2)

    @property
    def position(self) -> int:
        """Return how many tokens the longest row holds."""
        return max(self.lengths)

    @property
    def capacity(self) -> int:
        """Return the number of slots per row before the next growth."""
        return self._slots.size(4)

    def positions(self, length: int) -> Tensor | slice:
        """Return the positions of the next `length` tokens: a slice, or (B, T) where rows differ."""
        if self._even:
            return slice(self.position, self.position + length)
        asked = (tuple(self.lengths), length)
        if self._positions is None or self._positions[0] != asked:
            ahead = [range(held, held + length) for held in self.lengths]
            self._positions = (asked, torch.tensor(ahead, device=self._slots.device))
        return self._positions[1]

    def mask(self, length: int, window: int | None = None) -> Tensor | None:
        """Return which of the slots in reach the next `length` tokens may attend to.

        None: one token sees all of them, many see each other as if nothing had come before.
        """
        start, end = self.position, self.position + length
        if self._even and (length == 1 or start == 0):
            return None
        queries = self.positions(length)
        if isinstance(queries, slice):
            queries = torch.arange(start, end, device=self._slots.device)
        keys = torch.arange(self._first(window), end, device=self._slots.device)
        back = queries[..., None] - keys  # (T, S) or (B, T, S)
        seen = back >= 0 if window is None else (back >= 0) & (back <= window)
        return seen if seen.dim() == 2 else seen[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Store k and v (B, T, K, D) of a layer; return the keys and values in reach (B, S, K, D)."""
        first, end = self._first(window), self.position + k.size(1)
        self._hold(end)
        keys, values = self._slots[layer].transpose(2, 3)  # (B, capacity, K, D)
        at = self.positions(k.size(1))
        if isinstance(at, slice):
            keys[:, at], values[:, at] = k, v
        else:
            row = torch.arange(self.rows, device=at.device)[:, None]
            keys[row, at], values[row, at] = k.to(keys.dtype), v.to(keys.dtype)
        return keys[:, first:end], values[:, first:end]

    def before(self, x: Tensor) -> Tensor:
        """Return what came before each new embedding x (B, T, C), zeros before a text; keep the last."""
        last = torch.zeros_like(x[:, :1]) if self._last_embedding is None else self._last_embedding
        self._last_embedding = x[:, -1:].clone()
        return torch.cat((last, x[:, :-1]), dim=1)

    def advance(self, length: int) -> None:
        """Count `length` tokens as seen, once all layers have appended them."""
        self.lengths = [held + length for held in self.lengths]

    def take(self, rows: Sequence[int]) -> KVCache:
        """Return a new cache of the rows with these indices: drops finished rows, or fans one out."""
        other = KVCache.__new__(KVCache)
        other.lengths = [self.lengths[row] for row in rows]
        chosen = torch.tensor(rows, device=self._slots.device)
        other._slots = self._slots[:, :, chosen]
        last = self._last_embedding
        other._last_embedding = None if last is None else last[chosen]
        other._positions = None
        return other

    @property
    def _even(self) -> bool:
        return min(self.lengths) == max(self.lengths)

    def _first(self, window: int | None) -> int:
        """Return the first slot in reach of any row's next token."""
        return 0 if window is None else max(0, min(self.lengths) - window)

    def _hold(self, needed: int) -> None:
        """Make room for `needed` tokens per row."""
        layers, two, rows, heads, capacity, head_dim = self._slots.shape
        if needed <= capacity:
            return
        shape = (layers, two, rows, heads, _rounded(max(needed, 2 * capacity)), head_dim)
        larger = self._slots.new_zeros(shape)
        larger[..., :capacity, :] = self._slots
        self._slots = larger


class Filling:
    """Puts texts into rows of a cache while a model reads them packed."""

    def __init__(self, cache: KVCache, rows: Sequence[int], places: Sequence[Sequence[int]]) -> None:
        """Put into each row the tokens at its places among the N that are read."""
        self.cache = cache
        for row, at in zip(rows, places, strict=True):
            cache.lengths[row] = len(at)
        cache._hold(cache.position)
        device = cache._slots.device
        self._rows = torch.tensor(rows, device=device)
        self._ends = torch.tensor([at[-1] for at in places], device=device)
        into = [(row, slot) for row, at in zip(rows, places, strict=True) for slot in range(len(at))]
        self._row, self._slot = torch.tensor(into, device=device).unbind(1)
        self._source = torch.tensor([place for at in places for place in at], device=device)

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store k and v (1, N, K, D) of a layer."""
        keys, values = self.cache._slots[layer].transpose(2, 3)  # (B, capacity, K, D)
        keys[self._row, self._slot] = k[0, self._source].to(keys.dtype)
        values[self._row, self._slot] = v[0, self._source].to(keys.dtype)

    def keep_last(self, x: Tensor) -> None:
        """Keep the embedding of each text's last token out of x (1, N, C)."""
        last = self.cache._last_embedding
        if last is None:
            last = x.new_zeros(self.cache.rows, 1, x.size(-1))
        last[self._rows] = x[0, self._ends][:, None]
        self.cache._last_embedding = last


def _rounded(slots: int) -> int:
    return max(1, -(-slots // _BLOCK)) * _BLOCK
