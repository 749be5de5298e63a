"""Runs a function on several gloo processes on this machine, for tests of what is distributed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def on_ranks(world: int, call: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what `call(group, *arguments)` returns on each rank; `folder` is empty and theirs alone.

    The processes are forked from one that has imported what takes longest: torch, and what its optimizers
    import when the first is made.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nanochat.train.optimizer", "torch._dynamo"])
    processes = [
        context.Process(target=_rank, args=(rank, world, call, folder, arguments)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    assert codes == [0] * world, f"exit codes {codes}; see the captured output"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, call: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    torch.save(call(dist.group.WORLD, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
