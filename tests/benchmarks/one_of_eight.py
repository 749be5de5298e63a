"""One rank of eight without the other seven: what a rank computes and copies in a step, without the links.

`EchoGroup` stands in for a process group. Whatever this rank sends, all ranks are taken to send the same, so
sums of gradients are eight times its own (which the division by the global batch undoes), and no buffer keeps
garbage. Gathered weights would be eight copies of this rank's, too: after an update `others_restored` puts
back what the seven others own, so that a run trains rank 0's eighth of the weights and leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.model.gpt import GPT
from nanochat.optim.sharding import Sharding
from nanochat.ranks.rank_group import RankGroup

RANKS = 8


class _Done(dist.Work):
    """An exchange that was over as soon as it began."""

    def __init__(self) -> None:
        super().__init__()
        self._future: torch.futures.Future[None] = torch.futures.Future()
        self._future.set_result(None)

    def wait(self, timeout: object = None) -> bool:
        del timeout
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> torch.futures.Future[None]:
        return self._future


class EchoGroup(dist.ProcessGroup):
    """A process group in which rank 0 receives from every rank what it sends itself."""

    def allreduce(self, tensors: list[Tensor], opts: object = None) -> dist.Work:
        del opts
        for tensor in tensors:
            tensor.mul_(self.size())
        return _Done()

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object = None) -> dist.Work:
        del opts
        for received, sent in zip(outputs, inputs, strict=True):
            for part in received:
                part.copy_(sent)
        return _Done()

    def all_gather_single(self, output: Tensor, sent: Tensor, opts: object = None) -> dist.Work:
        del opts
        output.view(self.size(), *sent.shape).copy_(sent.expand(self.size(), *sent.shape))
        return _Done()

    def all_to_all_single(
        self, output: Tensor, sent: Tensor, received: list[int], counts: list[int], opts: object = None
    ) -> dist.Work:
        del opts
        own = sent[: counts[0]]  # what rank 0 sends to rank 0
        assert received == [counts[0]] * self.size()
        output.view(self.size(), *own.shape).copy_(own.expand(self.size(), *own.shape))
        return _Done()

    _allgather_base, alltoall_base = all_gather_single, all_to_all_single  # as torch 2.11 calls them


def world() -> RankGroup:
    """Return rank 0 of eight."""
    return RankGroup(0, RANKS, EchoGroup(0, RANKS))


def owned(model: GPT, group: dist.ProcessGroup) -> dict[str, slice]:
    """Return the rows of each parameter that this rank updates, as the optimizer deals them out."""
    kinds = model.parameter_groups()
    matrices = kinds.pop("matrices")
    rows = {name: parameter for named in kinds.values() for name, parameter in named.items()}
    shards = Sharding(rows, matrices, group).shards
    return {name: slice(s.begin, s.begin + s.weight.size(0)) for name, s in shards.items()}


def others_restored(model: GPT, mine: dict[str, slice]) -> Callable[[], None]:
    """Return a function that gives all rows but this rank's the values that they have now."""
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def restore() -> None:
        for name, parameter in model.named_parameters():
            part = mine.get(name, slice(0, 0))
            parameter[: part.start].copy_(kept[name][: part.start])
            parameter[part.stop :].copy_(kept[name][part.stop :])

    return restore
