"""What a model keeps of the texts it has already read, so that only what is new goes through it.

Each row of a cache is one text: its tokens and, in every layer, their keys and values; a token's slot is its
position. A forward pass feeds new tokens to some of the rows, any number to each (`Reading`), and nothing is
computed for the others. Rows may be cut back, copied and released, which is how a text that begins like an
earlier one is not read again. On a CPU each row has memory of its own, which grows with its text; on a GPU
all rows are one block, for which attention to one token each is a single call. Not here: which rows, and what
for (`nanochat.chat`).

Shapes: R rows of a group, N new tokens of all rows together, T of one row, S slots in reach of them, H heads,
K key/value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from nanochat.config import ModelConfig

BLOCK = 256  # slots; growing in blocks keeps copies rare without holding much more than is used


class KVCache:
    """Rows of texts, all empty at first: `GPT.read` and `GPT.forward` feed them."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int = 0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        block: int = BLOCK,
        together: bool | None = None,
    ) -> None:
        """Make room for `capacity` tokens in a row when it is first used.

        `together` keeps all rows in one block of memory; None: on a GPU.
        """
        self.texts: list[list[int]] = [[] for _ in range(rows)]
        """The tokens that each row holds, in every layer."""
        self.config = config
        self.device, self.dtype = torch.device(device), dtype
        size = rows if together or (together is None and self.device.type != "cpu") else 1
        self._groups = [
            _Group(self, size, max(capacity, 1), block) for _ in range(0, max(rows, 1), max(size, 1))
        ]
        self._size = size

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    @property
    def lengths(self) -> list[int]:
        """Return how many tokens each row holds."""
        return [len(text) for text in self.texts]

    @property
    def memory_bytes(self) -> int:
        """Return the bytes that keys and values take."""
        return sum(slots.nbytes for group in self._groups for slots in group.slots)

    def slots(self, row: int) -> int:
        """Return how many tokens a row has room for before its memory grows."""
        return self.place(row)[0].slots[0].size(3)

    def reading(self, rows: Sequence[int], texts: Sequence[Sequence[int]]) -> Reading:
        """Prepare to read some tokens, at least one, behind what each of some rows holds."""
        return Reading(self, rows, texts)

    def cut(self, row: int, length: int) -> None:
        """Forget what a row holds from a position on."""
        del self.texts[row][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        """Make a row hold the first tokens of another one in place of what it held."""
        (from_group, from_row), (to_group, to_row) = self.place(source), self.place(target)
        for layer in range(self.config.n_layer):
            held = from_group.slots[layer][:, from_row, :, :length]
            to_group.hold(layer, length)[:, to_row, :, :length] = held
        self.texts[target] = self.texts[source][:length]

    def release(self, row: int) -> None:
        """Forget a row; give its memory back where no other row shares it."""
        self.texts[row] = []
        number = row // self._size
        if not any(self.texts[number * self._size : (number + 1) * self._size]):
            self._groups[number].release()

    def place(self, row: int) -> tuple[_Group, int]:
        """Return the group of a row, and its number in it."""
        return self._groups[row // self._size], row % self._size


class _Group:
    """Some rows whose keys and values are one tensor in each layer."""

    def __init__(self, cache: KVCache, rows: int, capacity: int, block: int) -> None:
        config = cache.config
        self.rows = rows
        self._block, self._least, self._context = block, capacity, config.sequence_len
        self._layers = config.n_layer
        shape = (2, rows, config.n_kv_head, 0, config.n_embd // config.n_head)
        self._empty = torch.zeros(shape, device=cache.device, dtype=cache.dtype)
        self.slots: list[Tensor] = []  # of each layer keys and values (2, R, K, capacity, D)
        self.release()

    def release(self) -> None:
        self.slots = [self._empty] * self._layers

    def hold(self, layer: int, needed: int) -> Tensor:
        """Return a layer's slots with room for `needed` tokens per row; no other layer is copied."""
        slots = self.slots[layer]
        capacity = slots.size(3)
        if needed <= capacity:
            return slots
        # Twice as much each time, so that little is copied; but no more than a text may have.
        wanted = max(needed, self._least, min(2 * capacity, self._context))
        grown = -(-wanted // self._block) * self._block
        # Slots that a short row has not filled are multiplied by 0, which makes no number of what is not one.
        larger = slots.new_zeros((*slots.shape[:3], grown, slots.size(4)))
        larger[:, :, :, :capacity] = slots
        self.slots[layer] = larger
        return larger


@dataclass(frozen=True)
class _Stretch:
    """New tokens of one row: they attend to each other and to the slots before them."""

    group: _Group
    row: int
    first: int  # among the N new tokens,
    last: int  # and the one after the last
    start: int  # in the text,
    end: int
    reach: int  # the first slot in reach
    bias: Tensor | None  # (T, S), None: one token sees all, many see each other as if nothing came before

    def queries(self, q: Tensor) -> Tensor:
        """Return those of q (1, N, H, D) that ask."""
        return q[:, self.first : self.last]

    def stored(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Store what of the new keys and values (2, N, K, D) is the row's; return all in reach."""
        slots = self.group.hold(layer, self.end)
        if self.last - self.first == 1:
            slots[:, self.row, :, self.start] = new[:, self.first]
        else:
            of_row = new[:, self.first : self.last]
            slots[:, self.row, :, self.start : self.end] = of_row.transpose(1, 2)
            if self.start == 0:
                return of_row[:1], of_row[1:]
        seen = slots[:, self.row, :, self.reach : self.end].transpose(1, 2)  # (2, S, K, D)
        return seen[:1], seen[1:]


@dataclass(frozen=True)
class _Singles:
    """One new token in each of several rows of a group: one call for the whole group."""

    group: _Group
    rows: Tensor  # of the group
    places: Tensor  # among the N new tokens
    starts: Tensor
    reach: int
    end: int
    bias: Tensor | None  # (R, 1, 1, S)

    def queries(self, q: Tensor) -> Tensor:
        queries = q.new_zeros((self.group.rows, 1, *q.shape[2:]))
        queries[self.rows, 0] = q[0, self.places]
        return queries

    def stored(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        slots = self.group.hold(layer, self.end)
        for held, of_rows in zip(slots, new, strict=True):
            held[self.rows, :, self.starts] = of_rows[self.places].to(held.dtype)
        keys, values = slots[:, :, :, self.reach : self.end].transpose(2, 3)  # (R, S, K, D)
        return keys, values


Part = _Stretch | _Singles
"""Queries of one attention call, with the keys and values that they see."""


class Reading:
    """New tokens for some rows of a cache, all in one long row (1, N): what one forward pass reads."""

    def __init__(self, cache: KVCache, rows: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
        """Take at least one token for each of some rows, none of them twice."""
        self._cache, self._rows, self._texts = cache, rows, texts
        self._starts = [len(cache.texts[row]) for row in rows]
        ends = list(accumulate(map(len, texts)))
        self._spans = list(zip([0, *ends], ends, strict=False))  # of each row among the N tokens
        self.longest = max(start + len(text) for start, text in zip(self._starts, texts, strict=True))
        ahead = [range(start, start + len(text)) for start, text in zip(self._starts, texts, strict=True)]
        self.tokens = self._tensor([list(chain.from_iterable(texts))])  # (1, N)
        self.positions = self._tensor(list(chain.from_iterable(ahead)))  # (N,), in the row's text
        self.lasts = self._tensor([end - 1 for end in ends])
        """Where each row's last new token is among the N."""
        self._parts: dict[int | None, list[Part]] = {}

    def before(self, x: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Return for each new token's embedding x (1, N, C) the one before it, zeros where a text begins."""
        firsts = self._tensor([first for first, _ in self._spans])
        held = [self._cache.texts[row][-1] if start else 0 for row, start in self._held()]
        began = self._tensor([start > 0 for start in self._starts])
        before = x.roll(1, dims=1)
        before[0, firsts] = embed(self._tensor(held)) * began[:, None]
        return before

    def parts(self, window: int | None) -> Sequence[Part]:
        """Return the calls of attention that make up a layer's, each for some of the tokens."""
        if window not in self._parts:
            self._parts[window] = list(self._made(window))
        return self._parts[window]

    def joined(self, found: Sequence[Tensor], window: int | None) -> Tensor:
        """Return as (1, N, H, D) what each of the parts has found."""
        parts = self.parts(window)
        if all(isinstance(part, _Stretch) for part in parts):
            return found[0] if len(found) == 1 else torch.cat(list(found), dim=1)
        out = found[0].new_empty((1, self.tokens.size(1), *found[0].shape[2:]))
        for part, of_part in zip(parts, found, strict=True):
            if isinstance(part, _Stretch):
                out[:, part.first : part.last] = of_part
            else:
                out[0, part.places] = of_part[part.rows, 0]
        return out

    def done(self) -> None:
        """Count the tokens as held, once all layers have stored them."""
        for row, text in zip(self._rows, self._texts, strict=True):
            self._cache.texts[row].extend(text)

    def _held(self) -> Iterator[tuple[int, int]]:
        return zip(self._rows, self._starts, strict=True)

    def _made(self, window: int | None) -> Iterator[Part]:
        singles: dict[_Group, list[_Stretch]] = {}
        for (row, start), (first, last) in zip(self._held(), self._spans, strict=True):
            group, number = self._cache.place(row)
            reach = 0 if window is None else max(0, start - window)
            bias = None if start == 0 or last - first == 1 else self._bias(start, last - first, reach, window)
            part = _Stretch(group, number, first, last, start, start + last - first, reach, bias)
            if group.rows > 1 and last - first == 1:
                singles.setdefault(group, []).append(part)
            else:
                yield part
        for group, parts in singles.items():
            yield self._together(group, parts, window)

    def _together(self, group: _Group, parts: Sequence[_Stretch], window: int | None) -> _Singles:
        reach, end = min(part.reach for part in parts), max(part.end for part in parts)
        starts = [part.start for part in parts]
        rows = self._tensor([part.row for part in parts])
        bias = None
        if len(parts) < group.rows or min(starts) < max(starts):
            slots = torch.arange(reach, end, device=rows.device)
            queries = torch.zeros(group.rows, 1, dtype=torch.long, device=rows.device)
            queries[rows, 0] = self._tensor(starts)
            bias = self._unseen(queries, slots, window)[:, None, None]  # (R, 1, 1, S)
        places = self._tensor([part.first for part in parts])
        return _Singles(group, rows, places, self._tensor(starts), reach, end, bias)

    def _bias(self, start: int, count: int, reach: int, window: int | None) -> Tensor:
        """Return what is added to the scores (T, S) of a row's new tokens."""
        slots = torch.arange(reach, start + count, device=self._cache.device)
        return self._unseen(slots[start - reach :, None], slots, window)

    def _unseen(self, queries: Tensor, slots: Tensor, window: int | None) -> Tensor:
        """Return minus infinity where a slot is not seen from a position."""
        back = queries - slots
        hidden = back < 0 if window is None else (back < 0) | (back > window)
        if window is not None:
            # A row that is not fed asks from its beginning, which may be out of reach: it sees one slot.
            hidden[:, 0] &= ~hidden.all(dim=-1)
        zeros = torch.zeros(hidden.shape, dtype=self._cache.dtype, device=hidden.device)
        return zeros.masked_fill_(hidden, -torch.inf)

    def _tensor(self, numbers: Sequence[object]) -> Tensor:
        return torch.tensor(numbers, device=self._cache.device)
