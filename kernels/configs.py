"""Tile sizes, warps and pipeline stages of every kernel: one static table; nothing is tuned at run time.

A row applies to a compute capability (90 is H100), a kernel, a class of shapes and an element size. A device
uses the newest row that is not newer than itself. `VARIANTS` has other configurations of some rows: which is
fastest, only a GPU can show, and `kernels.chosen` names those that one has shown. `tests/aot` compiles every
row and variant, refuses spills and serialized tensor cores, and compares registers and shared memory with
`kernels/results/machine_code.csv`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from kernels.chosen import CHOSEN

BASE = "base"  # what a row's configuration in `TABLE` is called
_Sizes = tuple[int, ...]
_BITS = {torch.bfloat16: 16, torch.float16: 16, torch.float32: 32}


class Row(NamedTuple):
    """What a configuration is for."""

    arch: int  # compute capability x 10
    kernel: str
    shape: str  # class of shapes, such as "head_dim=128"; "any"
    bits: int  # of one element


@dataclass(frozen=True)
class KernelConfig:
    """How a kernel is launched, and what its machine code must show on sm_90."""

    num_warps: int
    num_stages: int
    tiles: Mapping[str, int] = field(default_factory=dict)  # constexpr arguments
    tensor_core: bool = False  # designed to use wgmma
    tma: bool = False  # designed to load through tensor descriptors
    name: str = BASE  # among the variants of its row
    gluon: bool = False  # launches the kernel in Gluon, whose warps have different work

    @property
    def launch(self) -> dict[str, int]:
        """Return the keyword arguments of the launch."""
        return {**self.tiles, "num_warps": self.num_warps, "num_stages": self.num_stages}


def _attention(
    arch: int, bits: int, shape: str, forward: _Sizes, dq: _Sizes, dkv: _Sizes
) -> dict[Row, KernelConfig]:
    """Return three rows, each from BLOCK_M (queries), BLOCK_N (keys), warps, stages, and LATE (1 or none)."""
    sizes = {"attention_forward": forward, "attention_dq": dq, "attention_dkv": dkv}
    fast = arch == 90 and bits == 16
    return {Row(arch, kernel, shape, bits): _attention_config(*of, fast=fast) for kernel, of in sizes.items()}


def _attention_config(
    m: int, n: int, num_warps: int, num_stages: int, late: int = 0, *, fast: bool = True, name: str = BASE
) -> KernelConfig:
    tiles = {"BLOCK_M": m, "BLOCK_N": n, "LATE": late}
    return KernelConfig(num_warps, num_stages, tiles, tensor_core=fast, tma=fast, name=name)


def _specialized(num_stages: int, name: str = "gluon", *, turns: bool = True) -> KernelConfig:
    """Return the forward kernel in `kernels.attention.hopper`; the warps are those of one consumer."""
    tiles = {"BLOCK_M": 64, "BLOCK_N": 128, "TURNS": int(turns)}
    return KernelConfig(4, num_stages, tiles, tensor_core=True, tma=True, name=name, gluon=True)


def _matmul(
    m: int, n: int, k: int, num_warps: int, num_stages: int, *, wgmma: bool = False, name: str = BASE
) -> KernelConfig:
    tiles = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}
    return KernelConfig(num_warps, num_stages, tiles, tensor_core=wgmma, tma=wgmma, name=name)


def _squared(config: KernelConfig, *, parts: int = 1, persistent: int = 0, name: str = BASE) -> KernelConfig:
    """Return the configuration of relu_squared_up from that of a product."""
    return replace(config, tiles={**config.tiles, "PARTS": parts, "PERSISTENT": persistent}, name=name)


def _losses(config: KernelConfig, *, flat: int = 0, name: str = BASE) -> KernelConfig:
    """Return the configuration of cross_entropy_losses from that of a product."""
    return replace(config, tiles={**config.tiles, "FLAT": flat}, name=name)


def _attention_elsewhere(masked: str) -> dict[Row, KernelConfig]:
    """Return the rows of the devices that no training run of ours uses."""
    small, large = f"head_dim=64{masked}", f"head_dim=128{masked}"
    return {
        **_attention(80, 16, small, (64, 32, 4, 2), (64, 32, 4, 2), (16, 64, 4, 2)),
        **_attention(80, 16, large, (64, 32, 4, 2), (64, 32, 8, 2), (32, 64, 8, 2)),
        **_attention(100, 16, small, (128, 64, 4, 3), (128, 64, 4, 2), (64, 128, 8, 2)),
        **_attention(100, 16, large, (128, 64, 4, 3), (128, 64, 4, 2), (64, 128, 8, 2)),
        **_attention(120, 16, small, (128, 32, 8, 2), (128, 32, 8, 2), (32, 128, 8, 2)),
        **_attention(120, 16, large, (128, 32, 8, 2), (128, 16, 8, 2), (16, 128, 8, 2)),
    }


# At the tensor cores' full rate a core loads 48 bytes a cycle for these tiles and 64 for those of 128 x 128,
# two of which share a core, so that one computes while the other stores. What an H100's L2 cache can give is
# not published: A100's 5,120 bytes a cycle would be 39 for each of 132 cores.
_LARGE_TILE = _matmul(128, 256, 64, 8, 4, wgmma=True)
_TWO_PER_CORE = _matmul(128, 128, 64, 8, 3, wgmma=True, name="two per core")

_LOOPED = KernelConfig(8, 1, {"BLOCK": 4096, "HELD": 0})

# Float32 products are exact, on plain cores: correct, slow, and never on the training path.
TABLE: dict[Row, KernelConfig] = {
    # A row of logits per program, held in registers, 32 words of two for each thread. A core computes one in
    # 12,300 cycles (three special functions a logit, 16 a cycle); its share of 3 TB/s moves one in 19,500.
    Row(80, "cross_entropy_rows", "columns=65536", 16): KernelConfig(32, 1, {"BLOCK": 65536, "HELD": 1}),
    Row(80, "cross_entropy_rows", "columns=32768", 16): KernelConfig(16, 1, {"BLOCK": 32768, "HELD": 1}),
    # Read twice: few registers, so that several programs share a core and wait for memory in turn.
    Row(80, "cross_entropy_rows", "any", 16): _LOOPED,
    Row(80, "cross_entropy_rows", "any", 32): KernelConfig(8, 1, {"BLOCK": 2048, "HELD": 0}),
    # A tile's reduction takes 6,100 cycles after 20,500 of products. It is not hidden behind those of another
    # program: two have no room in the registers.
    Row(90, "cross_entropy_losses", "any", 16): _losses(_LARGE_TILE, flat=1),
    Row(80, "cross_entropy_losses", "any", 16): _losses(_matmul(128, 128, 32, 8, 3)),
    Row(100, "cross_entropy_losses", "any", 16): _losses(_matmul(128, 128, 64, 8, 3)),
    Row(120, "cross_entropy_losses", "any", 16): _losses(_matmul(128, 128, 32, 8, 3)),
    Row(80, "cross_entropy_losses", "any", 32): _losses(_matmul(64, 64, 32, 8, 2)),
    # One program a core, whose next tile is loaded while it stores this one; in halves, for which four stages
    # leave 32 KiB.
    Row(90, "relu_squared_up", "any", 16): _squared(_LARGE_TILE, parts=2, persistent=1),
    Row(80, "relu_squared_up", "any", 16): _squared(_matmul(128, 128, 32, 8, 3)),
    Row(100, "relu_squared_up", "any", 16): _squared(_matmul(128, 128, 64, 8, 3)),
    Row(120, "relu_squared_up", "any", 16): _squared(_matmul(128, 128, 32, 8, 3)),
    Row(80, "relu_squared_up", "any", 32): _squared(_matmul(64, 64, 32, 8, 2)),
    # Half of the registers hold products and a quarter the tile of `a`, which is loaded meanwhile.
    Row(90, "relu_squared_down", "any", 16): _LARGE_TILE,
    Row(80, "relu_squared_down", "any", 16): _matmul(128, 64, 32, 8, 3),
    Row(100, "relu_squared_down", "any", 16): _matmul(128, 128, 64, 8, 3),
    Row(120, "relu_squared_down", "any", 16): _matmul(128, 128, 32, 8, 3),
    # With a depth of 32, Triton 3.6 spills on H100.
    Row(80, "relu_squared_down", "any", 32): _matmul(64, 64, 16, 8, 2),
    # "masked" is for windows, documents and shared key heads, whose masks and indices take registers: with
    # 128 keys their dkv spills, or is serialized by Triton 3.6. At head dimension 64 exponentials take as
    # long as products, and two programs on a core hide more than a late product. Three stages: with two a
    # load begins when it is already waited for. Before H100 tiles come through pointers: many registers.
    **_attention(90, 16, "head_dim=64", (128, 64, 8, 3), (128, 64, 8, 3), (64, 64, 4, 3)),
    **_attention(90, 16, "head_dim=64 masked", (128, 64, 8, 3), (128, 64, 8, 3, 1), (64, 64, 4, 3)),
    **_attention(90, 16, "head_dim=128", (128, 128, 8, 3, 1), (128, 64, 8, 3, 1), (64, 128, 8, 3, 1)),
    **_attention(90, 16, "head_dim=128 masked", (128, 128, 8, 3, 1), (128, 64, 8, 3, 1), (64, 64, 4, 2)),
    **{row: config for masked in ("", " masked") for row, config in _attention_elsewhere(masked).items()},
    # Heads per program: 32 numbers of x per thread, several programs per core, which wait for memory in turn.
    Row(80, "qk_norm_rotary_forward", "any", 16): KernelConfig(4, 1, {"ROWS": 32}),
    Row(80, "qk_norm_rotary_forward", "any", 32): KernelConfig(4, 1, {"ROWS": 16}),
    Row(80, "qk_norm_rotary_backward", "any", 16): KernelConfig(4, 1, {"ROWS": 16}),
    Row(80, "qk_norm_rotary_backward", "any", 32): KernelConfig(4, 1, {"ROWS": 16}),
}


def _attention_variants(
    shape: str, kernel: str, *others: KernelConfig, **sizes: _Sizes
) -> dict[Row, tuple[KernelConfig, ...]]:
    """Return what else to try on H100: `early` has no late product, `pair` two programs on a core."""
    variants = (*(_attention_config(*of, name=name) for name, of in sizes.items()), *others)
    return {Row(90, f"attention_{kernel}", shape, 16): variants}


# Other configurations of a row, each gated like the row itself.
VARIANTS: dict[Row, tuple[KernelConfig, ...]] = {
    **_attention_variants(
        "head_dim=64", "forward", _specialized(4), pair=(64, 64, 4, 3), late=(64, 64, 4, 3, 1)
    ),
    **_attention_variants("head_dim=64", "dq", late=(128, 64, 8, 3, 1), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64", "dkv", late=(64, 64, 4, 3, 1), wide=(64, 128, 8, 3, 1)),
    **_attention_variants("head_dim=64 masked", "forward", pair=(64, 64, 4, 3), late=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64 masked", "dq", early=(128, 64, 8, 3), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64 masked", "dkv", wide=(64, 128, 8, 3)),
    **_attention_variants(
        "head_dim=128",
        "forward",
        _specialized(2),
        _specialized(2, "gluon-unordered", turns=False),
        small=(128, 64, 8, 3, 1),
        early=(128, 64, 8, 3),
        pair=(64, 64, 4, 3, 1),
    ),
    **_attention_variants("head_dim=128", "dq", early=(128, 64, 8, 3)),
    **_attention_variants("head_dim=128", "dkv", pair=(64, 64, 4, 2), narrow=(32, 64, 4, 3)),
    **_attention_variants("head_dim=128 masked", "forward", small=(128, 64, 8, 3, 1), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=128 masked", "dq", early=(128, 64, 8, 3)),
    **_attention_variants("head_dim=128 masked", "dkv", wide=(32, 128, 8, 3)),
    Row(90, "relu_squared_up", "any", 16): (
        _squared(_LARGE_TILE, parts=1, persistent=0, name="tile per program"),
        _squared(_TWO_PER_CORE, parts=2, persistent=2, name="two per core"),
    ),
    Row(90, "relu_squared_down", "any", 16): (_TWO_PER_CORE,),
    Row(80, "qk_norm_rotary_forward", "any", 16): (
        KernelConfig(4, 1, {"ROWS": 16}, name="half the rows"),
        KernelConfig(8, 1, {"ROWS": 32}, name="twice the threads"),
    ),
    Row(80, "qk_norm_rotary_backward", "any", 16): (
        KernelConfig(4, 1, {"ROWS": 32}, name="twice the rows"),
        KernelConfig(4, 1, {"ROWS": 8}, name="half the rows"),
    ),
    Row(90, "cross_entropy_losses", "any", 16): (_losses(_LARGE_TILE, name="two loops"),),
    Row(80, "cross_entropy_rows", "columns=65536", 16): (
        KernelConfig(16, 1, {"BLOCK": 65536, "HELD": 1}, name="half the threads"),
        replace(_LOOPED, name="read twice"),
    ),
}

# Classes of rows of bfloat16 logits, all valid and capped, that stay in registers.
HELD_ROWS = frozenset(row.shape for row in TABLE if row.kernel == "cross_entropy_rows") - {"any"}

_tried: dict[str, str] = {}  # variants by kernel that replace those chosen, while `trying` has a block


def find(kernel: str, dtype: torch.dtype, shape: str = "any") -> KernelConfig:
    """Return the configuration for the current device; KeyError names what the table lacks."""
    row = row_for(kernel, dtype, shape)
    name = _tried.get(kernel, CHOSEN.get(row, BASE))
    return next((config for config in VARIANTS.get(row, ()) if config.name == name), TABLE[row])


def row_for(kernel: str, dtype: torch.dtype, shape: str = "any", arch: int | None = None) -> Row:
    """Return the row that applies on the current device, or on `arch`; KeyError names what is missing."""
    arch = _arch() if arch is None else arch
    rows = [row for row in TABLE if row[1:] == (kernel, shape, _BITS[dtype]) and row.arch <= arch]
    if not rows:
        raise KeyError(f"no configuration for {Row(arch, kernel, shape, _BITS[dtype])}")
    return max(rows)


def candidates(row: Row) -> tuple[KernelConfig, ...]:
    """Return all configurations of a row, that of the table first."""
    return (TABLE[row], *VARIANTS.get(row, ()))


@contextlib.contextmanager
def trying(**variants: str) -> Iterator[None]:
    """Use the named variants of kernels while the block runs; a row without that variant uses its own."""
    before = dict(_tried)
    _tried.update(variants)
    try:
        yield
    finally:
        _tried.clear()
        _tried.update(before)


def n_cores() -> int:
    """Return how many multiprocessors the current device has."""
    from kernels.language import triton

    if triton.knobs.runtime.interpret:  # few, so that a program has several tiles
        return 2
    driver = triton.runtime.driver.active
    count: int = driver.utils.get_device_properties(driver.get_current_device())["multiprocessor_count"]
    return count


def _arch() -> int:
    from kernels.language import triton  # heavy, and the table is read without it

    if triton.knobs.runtime.interpret:  # no device: compute what an H100 would
        return 90
    arch: int = triton.runtime.driver.active.get_current_target().arch
    return arch
