"""All that a training run needs to continue after it was stopped, and how it is kept.

A restart point is a folder: `state.pt` (weights, optimizer, step: tensors and plain data, read with
`weights_only`), `run.json` (which run it belongs to) and the lines of the journal so far. There is no random
state in it, since nothing in the loop draws numbers, and no position in the data, since batches are functions
of the step. It is the same for any number of ranks: rank 0 writes the whole state, every rank reads it. Where
restart points live is `Runtime.restart_points`.
"""

from __future__ import annotations

import json
import logging
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.ranks.rank_group import ALONE, RankGroup
from nanochat.runtime import RestartPoints
from nanochat.writing import save_torch

logger = logging.getLogger(__name__)

_STATE, _RUN = "state.pt", "run.json"
STREAMS = ("metrics", "samples", "throughput")


@dataclass
class Journal:
    """The JSON lines a run has written so far; `metrics` and `samples` hold no times."""

    lines: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in STREAMS})

    def add(self, stream: str, record: Mapping[str, object]) -> None:
        """Append one record to a stream."""
        self.lines[stream].append(json.dumps(record, ensure_ascii=False, allow_nan=False))

    def write(self, folder: Path) -> None:
        """Write each stream as `<stream>.jsonl`."""
        for stream, lines in self.lines.items():
            text = "".join(line + "\n" for line in lines)
            (folder / f"{stream}.jsonl").write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Read what `write` wrote."""
        texts = {s: (folder / f"{s}.jsonl").read_text(encoding="utf-8") for s in STREAMS}
        # Not splitlines: text inside a record may hold other line separators.
        return cls({stream: text.split("\n")[:-1] for stream, text in texts.items()})


@dataclass
class TrainState:
    """A run between two steps, as one of its ranks holds it."""

    model: GPT
    optimizer: ModelOptimizer
    world: RankGroup = ALONE
    step: int = 0  # finished steps
    seconds: float = 0.0  # spent in steps, over all attempts
    journal: Journal = field(default_factory=Journal)
    kept_step: int | None = None  # of the newest restart point
    compiled: GPT | None = None  # the same model, its passes compiled

    @property
    def passes(self) -> GPT:
        """Return what forward and backward passes of training go through."""
        return self.model if self.compiled is None else self.compiled

    def save(
        self, restart_points: RestartPoints, run: Mapping[str, Any], scratch: Path | None = None
    ) -> None:
        """Keep a restart point, put together in `scratch`; `run` says which run it belongs to.

        All ranks call this together: the optimizer's state is spread over them.
        """
        if self.kept_step == self.step:
            return
        optimizer = self.optimizer.state_dict()
        if self.world.main:
            self._write(optimizer, restart_points, run, scratch)
        self.kept_step = self.step

    def _write(
        self,
        optimizer: Mapping[str, Any],
        restart_points: RestartPoints,
        run: Mapping[str, Any],
        scratch: Path | None,
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="nanochat-restart-", dir=scratch) as name:
            folder = Path(name)
            state = {
                "step": self.step,
                "seconds": self.seconds,
                "model": self.model.state_dict(),
                "optimizer": optimizer,
            }
            save_torch(state, folder / _STATE)
            (folder / _RUN).write_text(_canonical(run), encoding="utf-8")
            self.journal.write(folder)
            restart_points.save(self.step, folder)

    def restore(self, restart_points: RestartPoints, run: Mapping[str, Any]) -> bool:
        """Continue from the newest restart point, if there is one; DataError if it is of another run."""
        latest = restart_points.latest()
        if latest is None:
            return False
        step, folder = latest
        if (folder / _RUN).read_text(encoding="utf-8") != _canonical(run):
            raise DataError(
                f"the restart point of step {step} belongs to a run with other settings",
                hint="remove it, or give this run its own folder for restart points",
            )
        try:
            # Mapped, not read: all ranks of a machine share one copy of the file in memory.
            state = torch.load(folder / _STATE, map_location="cpu", mmap=True, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise DataError(f"the restart point of step {step} cannot be read: {error}") from error
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.journal = Journal.read(folder)
        self.kept_step = self.step
        logger.info("continuing after step %d", self.step)
        return True


def _canonical(run: Mapping[str, Any]) -> str:
    return json.dumps(run, sort_keys=True)
