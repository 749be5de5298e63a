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
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from kernels.chosen import CHOSEN
from kernels.language import triton

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


def _matmul(m: int, n: int, k: int, num_warps: int, num_stages: int, *, wgmma: bool = False) -> KernelConfig:
    tiles = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}
    return KernelConfig(num_warps, num_stages, tiles, tensor_core=wgmma, tma=wgmma)


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


# Float32 products are exact, on plain cores: correct, slow, and never on the training path.
TABLE: dict[Row, KernelConfig] = {
    # A row of logits per program. It waits for memory: few registers, so that several programs share a core.
    Row(80, "cross_entropy_rows", "any", 16): KernelConfig(8, 1, {"BLOCK": 4096}),
    Row(80, "cross_entropy_rows", "any", 32): KernelConfig(8, 1, {"BLOCK": 2048}),
    # The larger tile of two that fit: its reduction over columns is not hidden behind the product of another
    # program, but 128 x 128 would ask half as much again of the L2 cache, by count 12.5 TB/s at full speed.
    Row(90, "cross_entropy_losses", "any", 16): _matmul(128, 256, 64, 8, 4, wgmma=True),
    Row(80, "cross_entropy_losses", "any", 16): _matmul(128, 128, 32, 8, 3),
    Row(100, "cross_entropy_losses", "any", 16): _matmul(128, 128, 64, 8, 3),
    Row(120, "cross_entropy_losses", "any", 16): _matmul(128, 128, 32, 8, 3),
    Row(80, "cross_entropy_losses", "any", 32): _matmul(64, 64, 32, 8, 2),
    # Four stages fill the pipeline; the epilogue's tile takes over their shared memory when they are done.
    Row(90, "relu_squared_up", "any", 16): _matmul(128, 256, 64, 8, 4, wgmma=True),
    Row(80, "relu_squared_up", "any", 16): _matmul(128, 128, 32, 8, 3),
    Row(100, "relu_squared_up", "any", 16): _matmul(128, 128, 64, 8, 3),
    Row(120, "relu_squared_up", "any", 16): _matmul(128, 128, 32, 8, 3),
    Row(80, "relu_squared_up", "any", 32): _matmul(64, 64, 32, 8, 2),
    Row(90, "relu_squared_down", "any", 16): _matmul(128, 256, 64, 8, 4, wgmma=True),
    Row(80, "relu_squared_down", "any", 16): _matmul(128, 64, 32, 8, 3),
    Row(100, "relu_squared_down", "any", 16): _matmul(128, 128, 64, 8, 3),
    Row(120, "relu_squared_down", "any", 16): _matmul(128, 128, 32, 8, 3),
    Row(80, "relu_squared_down", "any", 32): _matmul(64, 64, 32, 8, 2),
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


def _attention_variants(shape: str, kernel: str, **sizes: _Sizes) -> dict[Row, tuple[KernelConfig, ...]]:
    """Return what else to try on H100: `early` has no late product, `pair` two programs on a core."""
    variants = tuple(_attention_config(*of, name=name) for name, of in sizes.items())
    return {Row(90, f"attention_{kernel}", shape, 16): variants}


# Other configurations of a row, each gated like the row itself.
VARIANTS: dict[Row, tuple[KernelConfig, ...]] = {
    **_attention_variants("head_dim=64", "forward", pair=(64, 64, 4, 3), late=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64", "dq", late=(128, 64, 8, 3, 1), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64", "dkv", late=(64, 64, 4, 3, 1), wide=(64, 128, 8, 3, 1)),
    **_attention_variants("head_dim=64 masked", "forward", pair=(64, 64, 4, 3), late=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64 masked", "dq", early=(128, 64, 8, 3), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=64 masked", "dkv", wide=(64, 128, 8, 3)),
    **_attention_variants(
        "head_dim=128", "forward", small=(128, 64, 8, 3, 1), early=(128, 64, 8, 3), pair=(64, 64, 4, 3, 1)
    ),
    **_attention_variants("head_dim=128", "dq", early=(128, 64, 8, 3)),
    **_attention_variants("head_dim=128", "dkv", pair=(64, 64, 4, 2), narrow=(32, 64, 4, 3)),
    **_attention_variants("head_dim=128 masked", "forward", small=(128, 64, 8, 3, 1), pair=(64, 64, 4, 3, 1)),
    **_attention_variants("head_dim=128 masked", "dq", early=(128, 64, 8, 3)),
    **_attention_variants("head_dim=128 masked", "dkv", wide=(32, 128, 8, 3)),
}

_tried: dict[str, str] = {}  # variants by kernel that replace those chosen, while `trying` has a block


def find(kernel: str, dtype: torch.dtype, shape: str = "any") -> KernelConfig:
    """Return the configuration for the current device; KeyError names what the table lacks."""
    row = row_for(kernel, dtype, shape)
    name = _tried.get(kernel, CHOSEN.get(row, BASE))
    return next((config for config in VARIANTS.get(row, ()) if config.name == name), TABLE[row])


def row_for(kernel: str, dtype: torch.dtype, shape: str = "any") -> Row:
    """Return the row that applies on the current device; KeyError names what the table lacks."""
    arch = _arch()
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


def _arch() -> int:
    if triton.knobs.runtime.interpret:  # no device: compute what an H100 would
        return 90
    arch: int = triton.runtime.driver.active.get_current_target().arch
    return arch
