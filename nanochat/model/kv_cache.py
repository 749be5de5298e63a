"""Keys and values of the tokens a model has already seen, for generation one token at a time.

Used in two ways: rows of equal length (no padding), and rows of different lengths aligned at their ends
(`left_padding` says how many leading slots of each row are not text). Slots are allocated in blocks and
copied to a larger block when they run out. Not here: sampling and stop rules (`nanochat.chat.engine`).

Shapes: B rows, K key/value heads, T new positions, S slots filled so far, D head dimension.
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

    def mask(self, length: int) -> Tensor | None:
        """Return which slots the next `length` tokens may attend to, or None where plain causal is right."""
        start, end = self.position, self.position + length
        if self.left_padding is None and (length == 1 or start == 0):
            return None
        queries = torch.arange(start, end, device=self._slots.device)[:, None]
        keys = torch.arange(end, device=self._slots.device)[None, :]
        if self.left_padding is None:
            return keys <= queries  # (T, S)
        text = keys[None] >= self.left_padding[:, None, None]
        # Padding attends to itself, since a softmax over nothing is not a number.
        return (((keys <= queries) & text) | (keys == queries))[:, None]  # (B, 1, T, S)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, K, T, D) of a layer; return all keys and values so far (B, K, S, D)."""
        end = self.position + k.size(2)
        if end > self.capacity:
            self._grow(end)
        self._slots[layer, 0, :, :, self.position : end] = k
        self._slots[layer, 1, :, :, self.position : end] = v
        return self._slots[layer, 0, :, :, :end], self._slots[layer, 1, :, :, :end]

    def advance(self, length: int) -> None:
        """Count `length` tokens as seen, once all layers have appended them."""
        self.position += length

    def take(self, rows: Tensor) -> KVCache:
        """Return a new cache of the rows with these indices: drops finished rows, or fans one out."""
        other = KVCache.__new__(KVCache)
        other.position = self.position
        other.left_padding = None if self.left_padding is None else self.left_padding[rows]
        other._slots = self._slots[:, :, rows]
        return other

    def _grow(self, needed: int) -> None:
        layers, two, rows, heads, capacity, head_dim = self._slots.shape
        shape = (layers, two, rows, heads, _rounded(max(needed, 2 * capacity)), head_dim)
        larger = self._slots.new_empty(shape)
        larger[..., :capacity, :] = self._slots
        self._slots = larger


def _rounded(slots: int) -> int:
    return max(1, -(-slots // _BLOCK)) * _BLOCK
