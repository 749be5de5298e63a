"""Sizes in memory that a kernel chooses for itself; estimates read them too, without loading PyTorch."""

from __future__ import annotations

LOGIT_CHUNK_BYTES = 13 << 26  # of the loss on a GPU, at most: 6,656 tokens of 65,536 logits in bfloat16
_CORES, _TILE_ROWS, _TILE_COLUMNS = 132, 128, 256  # of an H100; of cuBLAS's largest tile


def logit_chunk(n_rows: int, width: int, n_columns: int, element_bytes: int) -> int:
    """Return how many tokens' logits the loss holds at a time on a GPU, at most `LOGIT_CHUNK_BYTES`.

    The product with the fewest tiles is the hidden states' gradient, (tokens, width). Each wave of tiles, one
    for each core, takes as long as a full one: the size between half and all of the limit with the fewest
    waves, then the fewest chunks, is taken. At d20's shapes 6,656 tokens are 260 tiles in two waves.
    """
    most = max(4096, LOGIT_CHUNK_BYTES // (element_bytes * n_columns) // _TILE_ROWS * _TILE_ROWS)
    return min(range(most, most // 2, -_TILE_ROWS), key=lambda size: _cost(n_rows, size, width))


def _cost(n_rows: int, size: int, width: int) -> tuple[int, int, int]:
    """Return the waves of tiles of (n_rows, width) in chunks of `size` rows, the chunks, and the size."""
    column_tiles = -(-width // _TILE_COLUMNS)
    full, rest = divmod(n_rows, size)
    each, last = (-(-(-(-rows // _TILE_ROWS) * column_tiles) // _CORES) for rows in (size, rest))
    return full * each + last, full + (rest > 0), size
