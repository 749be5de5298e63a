"""The processes that run one stage together: who has which rows, and small numbers shared by all.

One process is a world of size 1, in which nothing is sent. The numbers (counts, losses, requests to stop)
travel between CPUs, so a rank that waits here holds up no GPU queue. Gradients are the optimizer's business.
Who starts the processes is `nanochat.ranks.launch`; `RankGroup.current` finds them through
`torch.distributed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed

Group = distributed.ProcessGroup


@dataclass(frozen=True)
class RankGroup:
    """This process among those that run a stage together."""

    rank: int = 0
    size: int = 1
    group: Group | None = None

    @classmethod
    def current(cls) -> RankGroup:
        """Return the world that this process was started in."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), distributed.group.WORLD)

    @property
    def main(self) -> bool:
        """Return whether this process writes artifacts and speaks for all."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """Return this rank's part of `count` rows: all ranks together have each row once, in order.

        Parts differ by one row at most; with fewer rows than ranks some are empty.
        """
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, *values: float) -> list[tuple[float, ...]]:
        """Return the values of every rank, by rank; the same on all of them."""
        if self.group is None:
            return [values]
        mine = torch.tensor(values, dtype=torch.float64)
        all_values = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(all_values, mine, group=self.group)
        return [tuple(theirs.tolist()) for theirs in all_values]

    def total(self, *values: float) -> tuple[float, ...]:
        """Return the sum over all ranks of each value."""
        return tuple(sum(column) for column in zip(*self.gather(*values), strict=True))

    def from_main(self, text: str) -> str:
        """Return rank 0's text on every rank."""
        if self.group is None:
            return text
        texts = [text]
        distributed.broadcast_object_list(texts, src=0, group=self.group, device=torch.device("cpu"))
        return texts[0]

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"


ALONE = RankGroup()
"""A process that runs a stage by itself."""
