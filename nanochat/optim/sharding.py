"""Which process updates what, and the communication for it (ZeRO-2).

Every process has all parameters. Gradients are summed such that each process gets those of its own shards,
updates them, and sends them to all. So each optimizer state exists only once. This file knows nothing of how
a shard is updated.

Parameters form buckets. A bucket is one parameter, or as many matrices of one shape as there are processes;
put one below the other, their rows are dealt out in equal runs, the last of which may be short or empty. So
any number of rows fits any number of processes, and a matrix that has to stay whole stays whole.

Sums add in the order of ranks, which is the order in which one process adds its micro-batches: N processes
give, bit for bit, the gradients of one process with N micro-batches. That is why gradients are exchanged and
then added, as many bytes as a reduce-scatter sends, in an order that does not depend on the library. It is
worth the care: Muon's iteration turns a last bit into a difference of a percent.

Letters: W processes; a bucket has R rows, and each process P = ceil(R / W) of them at most.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

Group = dist.ProcessGroup
# PyTorch before 2.13 has it only under the older name, which 2.13 warns about.
_all_gather_single = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


@dataclass(frozen=True)
class Shard:
    """The part of a parameter that this process updates: some of its rows, or all."""

    weight: Tensor  # shares the parameter's memory; `grad` is the reduced gradient
    begin: int = 0  # its first row in the parameter

    def part_of(self, whole: Tensor) -> Tensor:
        """Return the same rows of a tensor that is shaped like the parameter."""
        return whole[self.begin : self.begin + self.weight.size(0)]


class Sharding:
    """Shards of all parameters over a group of processes; without a group, everything is here."""

    def __init__(
        self, rows: Mapping[str, Parameter], matrices: Mapping[str, Parameter], group: Group | None
    ) -> None:
        """Deal out `rows` row by row, and each of `matrices` as a whole."""
        self._parameters = {**rows, **matrices}
        self._group = group
        self._buckets = [] if group is None else _buckets(rows, matrices, group)
        self._launched = 0  # buckets of this step whose exchange has begun
        self._reduced = False
        self.shards = {name: Shard(parameter) for name, parameter in self._parameters.items()}
        if group is not None:
            self.shards = dict(bucket.shard for bucket in self._buckets if bucket.shard is not None)

    @contextlib.contextmanager
    def reducing(self) -> Iterator[None]:
        """Start the exchange of each bucket as soon as the backward pass inside has completed it."""
        missing = [len(bucket.parameters) for bucket in self._buckets]

        def complete(index: int) -> None:
            missing[index] -= 1
            # In the same order on all processes, whatever the order of their backward passes.
            while self._launched < len(missing) and missing[self._launched] == 0:
                self._launch_next()

        handles = [
            _after_gradient(parameter, functools.partial(complete, index))
            for index, bucket in enumerate(self._buckets)
            for parameter in bucket.parameters.values()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def reduce(self) -> None:
        """Give every shard the sum of its gradients over all processes; a process without any adds zeros."""
        if self._reduced:
            return
        if not self._launched:
            _fill_if_none(self._parameters)
        while self._launched < len(self._buckets):
            self._launch_next()
        for bucket in self._buckets:
            bucket.finish_reduction()
        self._reduced = True

    def drop_gradients(self) -> None:
        """Make ready for the next step."""
        for parameter in self._parameters.values():
            parameter.grad = None
        for shard in self.shards.values():
            shard.weight.grad = None
        self._launched, self._reduced = 0, False

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a scalar over all processes."""
        if self._group is not None:
            dist.all_reduce(value, group=self._group)
        return value

    @torch.no_grad()
    def start_publishing(self, names: Sequence[str]) -> None:
        """Begin to send this process's updated shards of these parameters to all."""
        for bucket in self._buckets:
            if not bucket.parameters.keys().isdisjoint(names):
                bucket.start_publishing()

    @torch.no_grad()
    def finish_publishing(self) -> None:
        """Wait until every process has every updated parameter."""
        for bucket in self._buckets:
            bucket.finish_publishing()

    @torch.no_grad()
    def collect(
        self, state: Mapping[str, Mapping[str, Tensor]], shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
    ) -> dict[str, dict[str, Tensor]]:
        """Put the state of all shards together on rank 0, as copies in CPU memory; elsewhere return nothing.

        `shapes` are those of a whole parameter's state.
        """
        if self._group is None:
            return {n: {k: _cpu_copy(t) for k, t in tensors.items()} for n, tensors in state.items()}
        whole: dict[str, dict[str, Tensor]] = {name: {} for name in self._parameters}
        for bucket in self._buckets:
            first = next(iter(bucket.parameters))
            for key, shape in shapes[first].items():
                gathered = bucket.gather(state, key, shape)
                if self._group.rank() == 0:
                    for name, tensor in gathered.items():
                        whole[name][key] = _cpu_copy(tensor)
        return whole if self._group.rank() == 0 else {}

    def _launch_next(self) -> None:
        self._buckets[self._launched].start_reduction()
        self._launched += 1


class _Bucket:
    """Parameters of one shape, one below the other, P rows for each process."""

    def __init__(self, parameters: dict[str, Parameter], rows_per_rank: int, group: Group) -> None:
        self.parameters = parameters
        self._group, self._rank, self._world = group, group.rank(), group.size()
        self._height = next(iter(parameters.values())).size(0)
        self._per_rank = rows_per_rank
        rows = self._height * len(parameters)
        self._counts = [min(max(rows - r * rows_per_rank, 0), rows_per_rank) for r in range(self._world)]
        self.shard = self._own_shard()
        self._exchange: tuple[dist.Work, Tensor, Tensor] | None = None
        self._publication: tuple[dist.Work, Tensor, Tensor] | None = None

    def _own_shard(self) -> tuple[str, Shard] | None:
        count = self._counts[self._rank]
        if not count:
            return None
        index, begin = divmod(self._rank * self._per_rank, self._height)
        name, parameter = list(self.parameters.items())[index]
        return name, Shard(parameter.detach()[begin : begin + count], begin)

    def start_reduction(self) -> None:
        """Send each process its rows of this process's gradients."""
        gradients = [_gradient(name, parameter) for name, parameter in self.parameters.items()]
        sent = gradients[0].contiguous() if len(gradients) == 1 else torch.cat(gradients)
        own = self._counts[self._rank]
        received = sent.new_empty((self._world * own, *sent.shape[1:]))
        work = dist.all_to_all_single(
            received, sent, [own] * self._world, self._counts, group=self._group, async_op=True
        )
        self._exchange = (work, received, sent)
        for parameter in self.parameters.values():
            parameter.grad = None

    def finish_reduction(self) -> None:
        """Add what all processes sent, in the order of their ranks."""
        if self._exchange is None:
            return
        work, received, _ = self._exchange
        work.wait()
        self._exchange = None
        if self.shard is not None:
            first, *others = received.chunk(self._world)
            total = first + others[0] if others else first.clone()
            for part in others[1:]:
                total += part
            self.shard[1].weight.grad = total

    def start_publishing(self) -> None:
        """Send this process's shard to all."""
        shape = next(iter(self.parameters.values())).shape
        own = None if self.shard is None else self.shard[1].weight
        self._publication = self._start_gather(own, (self._per_rank, *shape[1:]))

    def finish_publishing(self) -> None:
        """Write what all processes sent into the parameters."""
        if self._publication is None:
            return
        work, gathered, _ = self._publication
        work.wait()
        self._publication = None
        parameters: list[Tensor] = list(self.parameters.values())
        torch._foreach_copy_(parameters, torch.split(gathered, self._height)[: len(parameters)])

    def gather(
        self, state: Mapping[str, Mapping[str, Tensor]], key: str, shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Put shards of one kind of state together; `shape` is that of a whole parameter's."""
        mine = None if self.shard is None else state[self.shard[0]][key]
        whole_shards = self._per_rank == self._height
        per_rank = shape[0] if whole_shards else self._per_rank
        work, gathered, _ = self._start_gather(mine, (per_rank, *shape[1:]))
        work.wait()
        return dict(zip(self.parameters, torch.split(gathered, shape[0]), strict=False))

    def _start_gather(self, own: Tensor | None, shape: tuple[int, ...]) -> tuple[dist.Work, Tensor, Tensor]:
        parameter = next(iter(self.parameters.values()))
        if own is not None and own.shape == shape:
            sent = own.contiguous()
        else:
            sent = parameter.new_zeros(shape)
            if own is not None:
                sent[: own.size(0)] = own
        gathered = sent.new_empty((self._world * shape[0], *shape[1:]))
        work = _all_gather_single(gathered, sent, group=self._group, async_op=True)
        return work, gathered, sent


def _buckets(rows: Mapping[str, Parameter], matrices: Mapping[str, Parameter], group: Group) -> list[_Bucket]:
    """Return buckets in the order in which a backward pass completes them, as far as names show it."""
    world = group.size()
    made = [_Bucket({name: p}, -(-p.size(0) // world), group) for name, p in rows.items()]
    by_shape: dict[torch.Size, list[str]] = defaultdict(list)
    for name in sorted(matrices, key=_depth):
        by_shape[matrices[name].shape].append(name)
    for shape, names in by_shape.items():
        for begin in range(0, len(names), world):
            some = {name: matrices[name] for name in names[begin : begin + world]}
            made.append(_Bucket(some, shape[0], group))
    return sorted(made, key=lambda bucket: min(map(_depth, bucket.parameters)), reverse=True)


def _depth(name: str) -> float:
    """Return how late in the forward pass a parameter is first used: a layer's number, or an end."""
    layer = re.search(r"\.(\d+)\.", name)
    if layer:
        return int(layer[1])
    return float("inf") if name.startswith("lm_head") else -1


def _after_gradient(parameter: Parameter, call: Callable[[], None]) -> RemovableHandle:
    register: Any = parameter.register_post_accumulate_grad_hook  # has no annotations
    handle: RemovableHandle = register(lambda _: call())
    return handle


def _fill_if_none(parameters: Mapping[str, Parameter]) -> None:
    if all(parameter.grad is None for parameter in parameters.values()):
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
    for name, parameter in parameters.items():
        _gradient(name, parameter)


def _gradient(name: str, parameter: Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"{name} has no gradient, while others have")
    return parameter.grad


def _cpu_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
