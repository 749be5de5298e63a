"""The asynchronous half of an H100, for `gluon_simulator`: who runs when, and what may touch which memory.

Partitions are threads of which one runs at a time. At each operation that synchronises, a seeded draw decides
who goes on: any partition that need not wait, a copy that arrives, a product that gets done. Seeds differ in
how slow each partition and the copies are. Nothing is done before it must be: a copy's target is NaN until it
arrives, and a product reads its operands at any moment up to the wait for it.

What no schedule may do is a `Fault`: a buffer in use is written, one being filled is read, a barrier gets
more than it expects, something is still in flight at the end, or everybody waits.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Fault(Exception):
    """What a kernel must not do under any schedule."""


class _Stopped(BaseException):
    """Ends the other partitions after a fault."""


def where() -> str:
    """Return the lines of the kernel that are running, the innermost first."""
    frame, lines = sys._getframe(1), []
    while frame := frame.f_back:
        if frame.f_code.co_filename.startswith("<kernel"):
            lines.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
    return " in ".join(lines)


class Tile:
    """One tile in shared memory: its bytes, and who uses it."""

    def __init__(self, shape: list[int], dtype: torch.dtype) -> None:
        self.data = torch.full(shape, float("nan"), dtype=dtype)
        self.readers: list[Any] = []  # products and stores that nobody has waited for
        self.filling: Load | None = None
        self.unfenced: Partition | None = None  # who stored here, unseen by TMA and the tensor cores

    def check_write(self, what: str) -> None:
        if self.readers or self.filling:
            user = self.filling or self.readers[0]
            raise Fault(f"{what} at {where()} writes a tile that {user} still uses")

    def check_read(self, what: str) -> None:
        if self.filling:
            raise Fault(f"{what} at {where()} reads a tile that {self.filling} fills")
        if self.unfenced:
            raise Fault(f"{what} at {where()} reads what was stored without a fence")


class Barrier:
    """An mbarrier: a phase is over after `count` arrivals and all expected bytes."""

    def __init__(self) -> None:
        self.count = self.missing = self.bytes = self.phase = 0
        self.unfenced: Partition | None = None

    def change(self, arrivals: int = 0, arrived: int = 0, expected: int = 0) -> None:
        if not self.count:
            raise Fault(f"a barrier is used at {where()} before it is initialised")
        self.missing -= arrivals
        self.bytes += expected - arrived
        if self.missing < 0 or self.bytes < 0:
            raise Fault(f"a barrier gets more arrivals or bytes than it expects, at {where()}")
        if not self.missing and not self.bytes:
            self.phase, self.missing = self.phase + 1, self.count

    def is_over(self, parity: int) -> bool:
        return self.phase % 2 != parity


class Load:
    """A TMA copy into shared memory."""

    def __init__(self, desc: Any, place: list[int], barrier: Barrier, tile: Tile) -> None:
        self.desc, self.place, self.barrier, self.tile, self.line = desc, place, barrier, tile, where()
        tile.check_write("a load")
        if barrier.unfenced:
            raise Fault(f"a load at {self.line} signals a barrier that was initialised without a fence")
        tile.filling = self
        tile.data.fill_(float("nan"))

    def __str__(self) -> str:
        return f"the load at {self.line}"

    def finish(self) -> None:
        self.tile.data.copy_(self.desc.read(self.place))
        self.tile.filling = None
        self.barrier.change(arrived=self.desc.block_type.nbytes)


class Store:
    """A TMA copy from shared memory."""

    def __init__(self, desc: Any, place: list[int], tile: Tile) -> None:
        self.desc, self.place, self.tile, self.line, self.done = desc, place, tile, where(), False
        tile.check_read("a store")
        tile.readers.append(self)

    def __str__(self) -> str:
        return f"the store at {self.line}"

    def finish(self) -> None:
        if not self.done:
            self.desc.write(self.place, self.tile.data)
            self.done = True


class Product:
    """A warpgroup_mma; its accumulator may be the result of one before it."""

    def __init__(self, a: Any, b: Any, acc: Any, use_acc: bool) -> None:
        self.a, self.b, self.acc, self.use_acc, self.line = a, b, acc, use_acc, where()
        self.result: Tensor | None = None
        for tile in self.tiles:
            tile.check_read("a product")
            tile.readers.append(self)

    @property
    def tiles(self) -> list[Tile]:
        return [x.tile for x in (self.a, self.b) if not isinstance(x, Tensor)]

    def __str__(self) -> str:
        return f"the product at {self.line}"

    def finish(self) -> None:
        if self.result is None:
            a, b = (x if isinstance(x, Tensor) else x.data for x in (self.a, self.b))
            acc = self.acc.result if isinstance(self.acc, Product) else self.acc
            product = a.float() @ b.float()
            if product.shape != acc.shape:
                raise Fault(f"{self} has shape {tuple(product.shape)}, its accumulator {tuple(acc.shape)}")
            self.result = product + acc if self.use_acc else product


class Partition(threading.Thread):
    """A group of warps that runs one function."""

    def __init__(self, machine: Machine, name: str, function: Callable[..., None], args: Any) -> None:
        super().__init__(name=name, daemon=True)
        self.machine, self.function, self.args = machine, function, args
        self.go = threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.line = "its beginning"
        self.products: list[Product] = []  # not waited for, the oldest first
        self.stores: list[Store] = []
        self.error: BaseException | None = None
        self.over = False

    def run(self) -> None:
        self.go.acquire()
        try:
            if not self.machine.stopped:
                self.function(*self.args)
                left = [*self.products, *self.stores]
                if left:
                    raise Fault(f"{self.name} ends before {left[0]}")
        except _Stopped:
            pass
        except BaseException as error:  # a failing assertion of the kernel, too, is the caller's
            self.error = error
        self.over = True
        self.machine.control.release()


class Machine:
    """One program: its partitions and what is in flight."""

    def __init__(self, seed: object) -> None:
        self.draw = random.Random(repr(seed))
        self.control = threading.Semaphore(0)
        self.partitions: list[Partition] = []
        self.loads: list[Load] = []
        self.tiles: list[Tile] = []
        self.barriers: list[Barrier] = []
        self.current: Partition | None = None
        self.stopped = False
        self.weights: dict[str, float] = {}

    def run(self, function: Callable[..., None], args: Any) -> None:
        """Run a kernel to its end; Fault if it does what it must not."""
        self.add("the first partition", function, args)
        try:
            while alive := [p for p in self.partitions if not p.over]:
                self._move(alive)
            if self.loads:
                raise Fault(f"the program ends before {self.loads[0]}")
        finally:
            self.stopped = True
            for partition in self.partitions:
                partition.go.release()
            for partition in self.partitions:
                partition.join()

    def add(self, name: str, function: Callable[..., None], args: Any) -> Partition:
        partition = Partition(self, name, function, args)
        self.partitions.append(partition)
        partition.start()
        return partition

    def step(self, ready: Callable[[], bool] = lambda: True) -> Partition:
        """Let somebody else go on; return the caller's partition once it may."""
        me = self.me
        me.ready, me.line = ready, where()
        self.control.release()
        me.go.acquire()
        if self.stopped:
            raise _Stopped
        return me

    @property
    def me(self) -> Partition:
        assert self.current is not None
        return self.current

    def _move(self, alive: list[Partition]) -> None:
        able = [p for p in alive if p.ready()]
        products = [p.products for p in alive]
        unfinished = [next((x for x in queue if x.result is None), None) for queue in products]
        stores = [s for p in alive for s in p.stores if not s.done]
        moves: list[Any] = [*able, *self.loads]
        if not moves:
            waiting = "; ".join(f"{p.name} at {p.line}" for p in alive)
            raise Fault(f"deadlock: {waiting}")
        moves += [*(x for x in unfinished if x is not None), *stores]
        (move,) = self.draw.choices(moves, [self._weight(x) for x in moves])
        if not isinstance(move, Partition):
            if isinstance(move, Load):
                self.loads.remove(move)
            move.finish()
            return
        self.current = move
        move.go.release()
        self.control.acquire()
        if move.error is not None:
            raise move.error

    def _weight(self, move: Any) -> float:
        name = move.name if isinstance(move, Partition) else type(move).__name__
        if name not in self.weights:
            self.weights[name] = self.draw.choice((0.02, 0.2, 1.0, 1.0))
        return self.weights[name]
