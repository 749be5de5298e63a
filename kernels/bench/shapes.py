"""Shapes that are timed, and what an op costs at them: operations and bytes by formula.

Bytes are the least that an op moves: each operand read once, each result written once. Attention counts the
(query, key) pairs that a mask shows, four operations per pair and head dimension forward and two and a half
times that backward, as FlashAttention's figures do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kernels.attention import visible_pairs

FORWARD, BACKWARD, BOTH = "forward", "backward", "forward+backward"
_BF16 = 2


@dataclass(frozen=True)
class LoadShape:
    """What one GPU sees of a model in a step."""

    name: str
    rows: int
    length: int
    width: int
    head_dim: int
    vocab: int

    @property
    def tokens(self) -> int:
        """Return the positions of all rows."""
        return self.rows * self.length

    @property
    def heads(self) -> int:
        """Return the heads of all `head_dim`."""
        return self.width // self.head_dim

    def with_heads_of(self, head_dim: int) -> LoadShape:
        """Return the shape with its width cut into other heads."""
        return replace(self, head_dim=head_dim)


D20 = LoadShape("d20", rows=32, length=2048, width=1280, head_dim=128, vocab=65_536)
D32 = LoadShape("d32", rows=8, length=2048, width=2048, head_dim=128, vocab=65_536)
TINY = LoadShape("tiny", rows=2, length=128, width=256, head_dim=128, vocab=512)
SHAPES = {"full": (D20, D32), "tiny": (TINY,)}


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one call."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def attention(shape: LoadShape, products: int, streams: int, pairs: float) -> Cost:
    """Return the cost of products over a row's visible pairs, and of passes over (B, T, H, D) numbers."""
    return Cost(
        products * 2.0 * shape.rows * shape.width * pairs,
        streams * _BF16 * shape.tokens * shape.width + 4.0 * shape.rows * shape.heads * shape.length,
    )


def products(rows: int, n_in: int, n_out: int, count: int = 1) -> Cost:
    """Return the cost of products of (rows, n_in) with (n_in, n_out), or of its gradients."""
    moved = _BF16 * (rows * n_in + n_in * n_out + rows * n_out)
    return Cost(count * 2.0 * rows * n_in * n_out, float(count * moved))


def passes(shape: LoadShape, streams: int) -> Cost:
    """Return the cost of passes over (B, T, H, D) numbers with the tables of a rotation."""
    return Cost(0.0, float(streams * _BF16 * shape.tokens * shape.width + 4 * shape.length * shape.head_dim))


def by_direction(forward: Cost, backward: Cost) -> dict[str, Cost]:
    """Return the cost of each direction and of both."""
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}


def attention_costs(shape: LoadShape) -> dict[str, Cost]:
    """Return what causal attention costs: q, k, v and the output; backward those, their gradients."""
    pairs = visible_pairs(shape.length, None)
    return by_direction(attention(shape, 2, 4, pairs), attention(shape, 5, 8, pairs))


def mlp_costs(shape: LoadShape) -> dict[str, Cost]:
    """Return what the MLP costs: two products; backward four."""
    one = products(shape.tokens, shape.width, 4 * shape.width, 2)
    return by_direction(one, one + one)


def rotary_costs(shape: LoadShape) -> dict[str, Cost]:
    """Return what the rotation with its norm costs: read and written; backward two read and one written."""
    return by_direction(passes(shape, 2), passes(shape, 3))


def loss_costs(shape: LoadShape) -> dict[str, Cost]:
    """Return what the loss costs: its operands, not the logits, and no product computed twice."""
    weight, hidden = shape.vocab * shape.width, shape.tokens * shape.width
    one = 2.0 * shape.tokens * weight
    return by_direction(Cost(one, _BF16 * (weight + hidden)), Cost(2 * one, 2.0 * _BF16 * (weight + hidden)))
