"""What the kernels of `attention` share: tiles of (B, T, H, D) by descriptor, and which keys a query sees.

Descriptors of four dimensions (TMA on H100 and newer, pointers on older devices) read zeros past T and store
nothing there: no tensor is transposed or padded.
"""

# The arguments of a kernel have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from kernels.language import jit, tl


@jit
def first_key(t, LO, row, T, window):
    """Return the first key that query t sees."""
    if LO is not None:
        return tl.load(LO + tl.cast(row, tl.int64) * T + t, t < T, other=0)
    if window is not None:
        return tl.maximum(t - window, 0)
    return t * 0


@jit
def end_query(s, HI, row, T, window):
    """Return the first query after s that no longer sees key s."""
    if HI is not None:
        return tl.load(HI + tl.cast(row, tl.int64) * T + s, s < T, other=0)
    if window is not None:
        return tl.minimum(s + window + 1, T)
    return s * 0 + T


@jit
def load_tile(desc, row, t, head, ROWS: tl.constexpr, D: tl.constexpr):
    """Return `ROWS` positions from t of one head, (ROWS, D)."""
    return desc.load([row, head, t, 0]).reshape([ROWS, D])


@jit
def store_tile(desc, row, t, head, tile, ROWS: tl.constexpr, D: tl.constexpr):
    """Store `ROWS` positions from t of one head."""
    desc.store([row, head, t, 0], tile.to(desc.dtype).reshape([1, 1, ROWS, D]))


@jit
def key_range(m0, LO, row, T, window, M: tl.constexpr, N: tl.constexpr):
    """Return where the block of the first key begins that any query sees, and the first key that all see."""
    if LO is None and window is None:
        return 0, 0
    begin = first_key(m0, LO, row, T, window) // N * N
    return begin, first_key(tl.minimum(m0 + M, T) - 1, LO, row, T, window)


@jit
def mask_edges(scores, n0, m0, t, first, whole, BOUNDED: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Hide from queries t the keys after them and before `first`, in a block that has such keys.

    With a finite number, so that a row without a visible key gives no NaN.
    """
    masked = n0 + N > m0
    if BOUNDED:
        masked = masked | (n0 < whole)
    if masked:
        s = n0 + tl.arange(0, N)[None, :]
        visible = s <= t[:, None]
        if BOUNDED:
            visible = visible & (s >= first[:, None])
        scores = tl.where(visible, scores, -1e38)
    return scores
