"""Tile sizes, warps and pipeline stages of every kernel: one static table, nothing is tuned at run time.

A row holds for a compute capability (90 is H100), a kernel, a class of shapes and an element size. A device
uses the newest row that is not newer than itself. `tests/aot` compiles every row, refuses spills and
serialized tensor cores, and compares registers and shared memory with `kernels/results/machine_code.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from kernels.language import triton

_BITS = {torch.bfloat16: 16, torch.float16: 16, torch.float32: 32}


class Row(NamedTuple):
    """What a configuration is for."""

    arch: int  # compute capability x 10
    kernel: str
    shape: str  # class of shapes, such as "head_dim=128"; "any"
    bits: int  # of one element


@dataclass(frozen=True)
class Config:
    """How a kernel is launched, and what its machine code must show on sm_90."""

    num_warps: int
    num_stages: int
    tiles: Mapping[str, int] = field(default_factory=dict)  # constexpr arguments
    tensor_core: bool = False  # designed to use wgmma
    tma: bool = False  # designed to load through tensor descriptors

    @property
    def launch(self) -> dict[str, int]:
        """Return the keyword arguments of the launch."""
        return {**self.tiles, "num_warps": self.num_warps, "num_stages": self.num_stages}


def _attention(kernel: str, arch: int, dim: int, bits: int, *sizes: int) -> tuple[Row, Config]:
    """Return a row from BLOCK_M (queries), BLOCK_N (keys), warps and stages."""
    m, n, num_warps, num_stages = sizes
    row = Row(arch, f"attention_{kernel}", f"head_dim={dim}", bits)
    tiles = {"BLOCK_M": m, "BLOCK_N": n}
    return row, Config(num_warps, num_stages, tiles, tensor_core=arch == 90 and bits == 16, tma=arch == 90)


# `dkv_masked` is for windows, documents and shared key heads, whose masks and indices take registers.
ATTENTION = (
    _attention("forward", 90, 64, 16, 128, 64, 8, 3),
    _attention("forward", 90, 128, 16, 128, 64, 8, 3),
    _attention("dq", 90, 64, 16, 128, 64, 8, 2),
    _attention("dq", 90, 128, 16, 128, 64, 8, 2),
    _attention("dkv", 90, 64, 16, 64, 128, 8, 2),
    _attention("dkv", 90, 128, 16, 64, 128, 8, 2),
    _attention("dkv_masked", 90, 64, 16, 64, 128, 8, 2),
    _attention("dkv_masked", 90, 128, 16, 32, 128, 8, 3),
)
TABLE: dict[Row, Config] = {**dict(ATTENTION)}


def find(kernel: str, dtype: torch.dtype, shape: str = "any") -> Config:
    """Return the configuration for the current device; KeyError names what the table lacks."""
    arch = _arch()
    rows = [row for row in TABLE if row[1:] == (kernel, shape, _BITS[dtype]) and row.arch <= arch]
    if not rows:
        raise KeyError(f"no configuration for {Row(arch, kernel, shape, _BITS[dtype])}")
    return TABLE[max(rows)]


def _arch() -> int:
    if triton.knobs.runtime.interpret:  # no device: compute what an H100 would
        return 90
    arch: int = triton.runtime.driver.active.get_current_target().arch
    return arch
