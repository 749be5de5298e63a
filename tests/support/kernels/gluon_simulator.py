"""Runs the source of a Gluon kernel for H100 in Python, in an order drawn from a seed: see `gluon_machine`.

`load` reads a file with kernels without their decorators, with edits if a test wants to break it; `launching`
gives its launch function stand-ins for Triton's names, so that a launch runs all programs one after another.
Only what the kernels here use is there; another name is an AttributeError.

Modelled: mbarriers with parities, counts and bytes; TMA loads and stores; asynchronous products; the fence
between what threads store and what TMA and the tensor cores read. Not modelled: the warps of a partition,
which run as one (the compiler puts bar.sync where they must meet, and a test of the compiled code looks for
it); registers and layouts (a wrong layout does not compile); visibility in global memory; time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.support.kernels.gluon_machine import Barrier, Fault, Load, Machine, Product, Store, Tile, where

__all__ = ["Fault", "launching", "load"]


def load(path: Path, *edits: tuple[str, str]) -> dict[str, Any]:
    """Return the names of a file with kernels as plain functions; each edit replaces what occurs once."""
    source = path.read_text(encoding="utf-8").replace("@gluon_jit\n", "")
    for old, new in edits:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times in {path}; an edit needs one place")
        source = source.replace(old, new)
    names: dict[str, Any] = {"__name__": "simulated"}
    exec(compile(source, f"<kernel {path.name}>", "exec"), names)
    return names


@contextlib.contextmanager
def launching(names: dict[str, Any], kernel: str, *, programs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Let a launch of the kernel run on a simulated device with so many multiprocessors."""
    stock = dict(names)
    names.update(_host(programs), **{kernel: _Launcher(names, kernel, seed)})
    try:
        yield names
    finally:
        names.update(stock)


class Descriptor:
    """A tensor in global memory as tiles; reads zeros and stores nothing out of range."""

    def __init__(self, base: Tensor, shape: Any, strides: Any, block_shape: list[int], layout: Any) -> None:
        self.data = base.as_strided(tuple(shape), tuple(strides))
        self.dtype, self.layout, self.shape = base.dtype, layout, block_shape
        size = base.element_size()
        for dim in block_shape:
            size *= dim
        self.block_type = SimpleNamespace(shape=list(block_shape), nbytes=size)

    def read(self, place: list[int]) -> Tensor:
        tile = torch.zeros(self.shape, dtype=self.dtype)
        inside = self._inside(place)
        tile[tuple(slice(0, n) for n in inside.shape)] = inside
        return tile

    def write(self, place: list[int], tile: Tensor) -> None:
        inside = self._inside(place)
        inside.copy_(tile[tuple(slice(0, n) for n in inside.shape)])

    def _inside(self, place: list[int]) -> Tensor:
        if len(place) != self.data.dim():
            raise Fault(f"{len(place)} coordinates for {self.data.dim()} dimensions at {where()}")
        return self.data[tuple(slice(at, at + n) for at, n in zip(place, self.shape, strict=True))]


class _Launcher:
    def __init__(self, names: dict[str, Any], kernel: str, seed: int) -> None:
        self.names, self.kernel, self.function, self.seed = names, kernel, names[kernel], seed

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*args: Any, num_warps: int, **constants: Any) -> None:
            pointers = [_Pointer(x, 0) if isinstance(x, Tensor) else x for x in args]
            for program in range(grid[0]):
                machine = Machine((self.seed, program))
                self.names.update(_device(machine, program, grid[0]))
                self.machine = machine
                machine.run(lambda: self.function(*pointers, **constants), ())

        return run


class _Pointer:
    """A tensor's address plus offsets."""

    def __init__(self, base: Tensor, offsets: Any) -> None:
        self.base, self.offsets = base, offsets

    def __add__(self, offsets: Any) -> _Pointer:
        return _Pointer(self.base, self.offsets + offsets)


class _View:
    """A tile in shared memory, or a part of it, in some order of its elements."""

    def __init__(self, machine: Machine, tile: Tile, data: Tensor) -> None:
        self.machine, self.tile, self.data = machine, tile, data

    def reshape(self, shape: list[int]) -> _View:
        return _View(self.machine, self.tile, self.data.view(shape))

    def permute(self, order: tuple[int, ...]) -> _View:
        return _View(self.machine, self.tile, self.data.permute(order))

    def store(self, value: Tensor) -> None:
        me = self.machine.step()
        self.tile.check_write("a store of threads")
        if (value.dtype, value.shape) != (self.data.dtype, self.data.shape):
            raise Fault(f"{value.dtype} {tuple(value.shape)} stored to another kind of tile at {where()}")
        self.data.copy_(value)
        self.tile.unfenced = me


class _Ring:
    """An allocation, of tiles or barriers by their index."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def index(self, i: int) -> Any:
        if not 0 <= i < len(self.items):
            raise Fault(f"index {i} into {len(self.items)} at {where()}")
        return self.items[i]


def _host(programs: int) -> dict[str, Any]:
    """Return what a launch function uses."""
    layouts = SimpleNamespace(get_default_for=lambda shape, dtype: None)
    properties = {"multiprocessor_count": programs}
    utils = SimpleNamespace(get_device_properties=lambda device: properties)
    active = SimpleNamespace(get_current_device=lambda: 0, utils=utils)
    runtime = SimpleNamespace(driver=SimpleNamespace(active=active))
    dtypes = {str(t).removeprefix("torch."): t for t in (torch.bfloat16, torch.float16, torch.float32)}
    return {
        "triton": SimpleNamespace(cdiv=lambda a, b: -(-a // b), runtime=runtime),
        "gl": SimpleNamespace(NVMMASharedLayout=layouts, **dtypes),
        "GluonDescriptor": Descriptor,
    }


def _device(machine: Machine, program: int, programs: int) -> dict[str, Any]:
    """Return what a kernel uses."""
    return {
        "gl": SimpleNamespace(**_values(program, programs), **_memory(machine)),
        "mbarrier": _barriers(machine),
        **_copies(machine),
        **_products(machine),
    }


def _values(program: int, programs: int) -> dict[str, Any]:
    def store(pointer: _Pointer, value: Tensor, mask: Tensor) -> None:
        offsets = pointer.offsets[mask]
        if offsets.numel() and not 0 <= int(offsets.min()) <= int(offsets.max()) < pointer.base.numel():
            raise Fault(f"a store at {where()} is out of range")
        pointer.base.view(-1)[offsets] = value[mask]

    return {
        **{"int64": torch.int64, "float32": torch.float32},
        **dict.fromkeys(("NVMMADistributedLayout", "DotOperandLayout", "SliceLayout"), lambda *_: None),
        **{"where": torch.where, "exp2": torch.exp2, "log2": torch.log2, "store": store},
        "program_id": lambda axis: program,
        "num_programs": lambda axis: programs,
        "static_range": range,
        "cdiv": lambda a, b: -(-a // b),
        "minimum": min,  # of numbers
        "maximum": lambda a, b: torch.maximum(a, b) if isinstance(a, Tensor) else max(a, b),
        "cast": lambda x, dtype: x,
        "convert_layout": lambda x, layout: x,
        "arange": lambda begin, end, layout: torch.arange(begin, end),
        "zeros": lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype),
        "max": lambda x, axis: x.amax(axis),
        "sum": lambda x, axis: x.sum(axis),
    }


def _memory(machine: Machine) -> dict[str, Any]:
    def allocate(dtype: torch.dtype, shape: list[int], layout: Any) -> _Ring:
        if dtype == torch.int64:
            return _Ring([Barrier() for _ in range(shape[0])])
        tiles = [Tile(shape[1:], dtype) for _ in range(shape[0])]
        machine.tiles += tiles
        return _Ring([_View(machine, tile, tile.data) for tile in tiles])

    def warp_specialize(parts: list[Any], warps: list[int], registers: list[int]) -> None:
        (first, args), *workers = parts
        if not len(workers) == len(warps) == len(registers):
            raise Fault(
                f"{len(workers)} workers, {len(warps)} numbers of warps, {len(registers)} of registers"
            )
        others = [machine.add(f"{f.__name__} ({i + 1})", f, a) for i, (f, a) in enumerate(workers)]
        machine.me.name = f"{first.__name__} (0)"
        first(*args)
        machine.step(lambda: all(other.over for other in others))

    return {"allocate_shared_memory": allocate, "warp_specialize": warp_specialize}


def _barriers(machine: Machine) -> SimpleNamespace:
    def init(barrier: Barrier, count: int) -> None:
        barrier.count = barrier.missing = count
        barrier.unfenced = machine.me
        machine.barriers.append(barrier)

    def wait(barrier: Barrier, phase: int) -> None:
        machine.step(lambda: barrier.is_over(phase))

    def arrive(barrier: Barrier, count: int) -> None:
        machine.step()
        barrier.change(arrivals=count)

    def expect(barrier: Barrier, size: int) -> None:
        machine.step()
        barrier.change(arrivals=1, expected=size)

    layout = lambda: None  # noqa: E731
    return SimpleNamespace(init=init, wait=wait, arrive=arrive, expect=expect, MBarrierLayout=layout)


def _copies(machine: Machine) -> dict[str, Any]:
    def load_tile(desc: Descriptor, place: list[int], barrier: Barrier, view: _View) -> None:
        machine.step()
        machine.loads.append(Load(desc, place, barrier, view.tile))

    def store_tile(desc: Descriptor, place: list[int], view: _View) -> None:
        me = machine.step()
        me.stores.append(Store(desc, place, view.tile))

    def store_wait(pendings: int) -> None:
        me = machine.step()
        while len(me.stores) > pendings:
            store = me.stores.pop(0)
            store.finish()
            store.tile.readers.remove(store)

    def fence() -> None:
        me = machine.step()
        for x in (*machine.tiles, *machine.barriers):
            if x.unfenced is me:
                x.unfenced = None

    tma = SimpleNamespace(
        async_copy_global_to_shared=load_tile, async_copy_shared_to_global=store_tile, store_wait=store_wait
    )
    return {"tma": tma, "fence_async_shared": fence}


def _products(machine: Machine) -> dict[str, Any]:
    def multiply(a: Any, b: Any, acc: Any, *, use_acc: bool = True, is_async: bool) -> Product:
        me = machine.step()
        me.products.append(Product(a, b, acc, use_acc))
        return me.products[-1]

    def wait(outstanding: int, results: list[Any]) -> Any:
        me = machine.step()
        while len(me.products) > outstanding:
            product = me.products.pop(0)
            product.finish()
            for tile in product.tiles:
                tile.readers.remove(product)
        (product,) = results
        if product in me.products:
            raise Fault(f"the result of {product} is used at {where()} while it is in flight")
        return product.result

    return {"warpgroup_mma": multiply, "warpgroup_mma_wait": wait}
