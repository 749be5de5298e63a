"""Functions run on several gloo ranks without torchrun: for tests of what ranks do together.

The ranks are forked from a process that has imported what takes longest and done nothing else, so that
starting some costs little.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PRELOADED = ["nanochat.train.pretrain", "nanochat.train.sft", "nanochat.evals.evaluate", "torch._dynamo"]


def on_ranks(size: int, function: Callable[..., Any], *arguments: object) -> list[Any]:
    """Call a module's function on each rank of a world of `size`; return what they return, by rank.

    An exception counts as a return value.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_rank, args=(end, store, rank, size, function, arguments))
            for rank, (_, end) in enumerate(pipes)
        ]
        for process, (_, end) in zip(processes, pipes, strict=True):
            process.start()
            end.close()  # only the rank has it now: a rank that dies gives EOFError
        results = [pickle.loads(start.recv_bytes()) for start, _ in pipes]
        for process, (start, _) in zip(processes, pipes, strict=True):
            process.join()
            process.close()
            start.close()
    return results


def _rank(
    end: Connection, store: str, rank: int, size: int, function: Callable[..., Any], arguments: Any
) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        result = function(*arguments)
    except Exception as error:
        result = error
    end.send_bytes(
        pickle.dumps(result)
    )  # by value: `send` would share the memory of tensors, which ends here
    distributed.destroy_process_group()
