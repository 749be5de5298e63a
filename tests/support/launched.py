"""Stage functions without a model, for tests of how ranks are started, followed and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import Config
from nanochat.errors import DataError, Interrupted
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime


def fail(config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> Mapping[str, Any]:
    """Fail as stages do."""
    raise DataError(f"{inputs['shards'].name} ends early", hint="download it again")


def die_on_rank_1(
    config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> Mapping[str, Any]:
    """Be killed on rank 1 while the others wait for it."""
    world = RankGroup.current()
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.gather(1.0)
    return {}


def lose_torchrun(
    config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> Mapping[str, Any]:
    """Kill torchrun, and stop as the training loop does when the signal arrives that this causes."""
    os.kill(os.getppid(), signal.SIGKILL)
    while not runtime.stop.is_set():
        time.sleep(0.05)
    raise Interrupted("stopped after step 3 of 9; step 3 is kept")


def wait_for_a_stop(
    config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> Mapping[str, Any]:
    """Leave the ids of this process and of torchrun, then look for a stop as the training loop does."""
    (out / f"{RankGroup.current()}.pid").write_text(f"{os.getpid()} {os.getppid()}")
    while True:
        runtime.raise_if_stopped()
        time.sleep(0.1)
