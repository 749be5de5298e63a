"""What a model keeps of the tokens it has already seen, for generation one token at a time.

Keys and values of every layer and, for architecture 2026, the last token's embedding.
Used in two ways: rows of equal length (no padding), and rows of different lengths aligned at their ends
(`left_padding` is how many leading slots of each row are not text). Slots are allocated in blocks and
copied to a larger block when they run out. Not here: sampling and stop rules (`nanochat.chat.engine`).

Shapes: B rows, K key/value heads, T new positions, S slots in reach of them, D head dimension, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.config import ModelConfig

_BLOCK = 256  # slots; growing in blocks keeps copies rare without holding much more than is used


class KVCache:
    """The cache of one batch; pass it to `GPT.forward`, which appends to it."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int = 0,
        *,
        left_padding: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Allocate room for `capacity` tokens per row; `left_padding` is (B,) integers."""
        if left_padding is not None and left_padding.shape != (rows,):
            raise ValueError(f"left_padding has shape {tuple(left_padding.shape)}, not ({rows},)")
        self.position = 0  # slots filled in every layer
        self.left_padding = None if left_padding is None else left_padding.to(device=device, dtype=torch.long)
        head_dim = config.n_embd // config.n_head
        shape = (config.n_layer, 2, rows, config.n_kv_head, _rounded(capacity), head_dim)
        self._slots = torch.empty(shape, device=device, dtype=dtype)
        self._last_embedding: Tensor | None = None  # (B, 1, C)

    @property
    def rows(self) -> int:
        """Return the number of rows B."""
        return self._slots.size(2)

    @property
    def capacity(self) -> int:
        """Return the number of slots per row before the next growth."""
        return self._slots.size(4)

    def positions(self, length: int) -> Tensor | slice:
        """Return the positions of the next `length` tokens: a slice, or (B, T) where rows differ."""
        if self.left_padding is None:
            return slice(self.position, self.position + length)
        slots = torch.arange(self.position, self.position + length, device=self._slots.device)
        return (slots[None, :] - self.left_padding[:, None]).clamp_min(0)

    def mask(self, length: int, window: int | None = None) -> Tensor | None:
        """Return which of the slots in reach the next `length` tokens may attend to.

        None: one token sees all of them, many see each other as if nothing had come before.
        """
        start, end = self.position, self.position + length
        if self.left_padding is None and (length == 1 or start == 0):
            return None
        queries = torch.arange(start, end, device=self._slots.device)[:, None]
        keys = torch.arange(self._first(window), end, device=self._slots.device)[None, :]
        seen = keys <= queries  # (T, S)
        if window is not None:
            seen &= queries - keys <= window
        if self.left_padding is None:
            return seen
        text = keys[None] >= self.left_padding[:, None, None]
        # Padding attends to itself, since a softmax over nothing is not a number.
        return ((seen & text) | (keys == queries))[:, None]  # (B, 1, T, S)

    def append(self, layer: int, k: Tensor, v: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Store k and v (B, T, K, D) of a layer; return the keys and values in reach (B, S, K, D)."""
        first, end = self._first(window), self.position + k.size(1)
        if end > self.capacity:
            self._grow(end)
        keys, values = self._slots[layer].transpose(2, 3)  # (B, capacity, K, D)
        keys[:, self.position : end] = k
        values[:, self.position : end] = v
        return keys[:, first:end], values[:, first:end]

    def before(self, x: Tensor) -> Tensor:
        """Return what came before each new embedding x (B, T, C), zeros before a text; keep the last."""
        last = torch.zeros_like(x[:, :1]) if self._last_embedding is None else self._last_embedding
        self._last_embedding = x[:, -1:].clone()
        shifted = torch.cat((last, x[:, :-1]), dim=1)
        if self.left_padding is None:
            return shifted
        slots = torch.arange(self.position, self.position + x.size(1), device=x.device)
        before_text = slots[None, :] <= self.left_padding[:, None]  # (B, T), a text's first token included
        return shifted.masked_fill(before_text[..., None], 0.0)

    def advance(self, length: int) -> None:
        """Count `length` tokens as seen, once all layers have appended them."""
        self.position += length

    def take(self, rows: Tensor) -> KVCache:
        """Return a new cache of the rows with these indices: drops finished rows, or fans one out."""
        other = KVCache.__new__(KVCache)
        other.position = self.position
        other.left_padding = None if self.left_padding is None else self.left_padding[rows]
        other._slots = self._slots[:, :, rows]
        last = self._last_embedding
        other._last_embedding = None if last is None else last[rows]
        return other

    def _first(self, window: int | None) -> int:
        """Return the first slot in reach of the next token."""
        return 0 if window is None else max(0, self.position - window)

    def _grow(self, needed: int) -> None:
        layers, two, rows, heads, capacity, head_dim = self._slots.shape
        shape = (layers, two, rows, heads, _rounded(max(needed, 2 * capacity)), head_dim)
        larger = self._slots.new_empty(shape)
        larger[..., :capacity, :] = self._slots
        self._slots = larger


def _rounded(slots: int) -> int:
    return max(1, -(-slots // _BLOCK)) * _BLOCK
