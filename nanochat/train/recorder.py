"""What a run reports about its steps: journal lines, tracker calls, and the summary at its end.

Speeds are those of all ranks together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nanochat.model.flops import parameter_count, peak_flops
from nanochat.model.gpt import GPT
from nanochat.runtime import Tracker
from nanochat.train.loop import StepResult
from nanochat.train.state import TrainState

UNKNOWN_DEVICE = "unknown device"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast tokens go, and how much of the devices' peak that is."""

    flops_per_token: int
    device: str  # name that its driver reports
    devices: int

    @classmethod
    def of(cls, model: GPT, devices: int) -> Speed:
        """Return the speed of a model trained on this many devices like its own."""
        cuda = model.device.type == "cuda"
        name = torch.cuda.get_device_name(model.device) if cuda else model.device.type
        return cls(flops_per_token=model.flops_per_token(), device=name, devices=devices)

    def utilisation(self, tokens_per_s: float) -> float | None:
        """Return the used part of the devices' peak (MFU), or None if that peak is not known."""
        peak = peak_flops(self.device)
        return None if peak is None else tokens_per_s * self.flops_per_token / (peak * self.devices)

    def metrics(self, tokens_per_s: float) -> dict[str, float]:
        """Return what a tracker shows; an unknown utilisation is left out."""
        mfu = self.utilisation(tokens_per_s)
        shown = {"throughput/tokens_per_s": tokens_per_s}
        return shown if mfu is None else {**shown, "throughput/mfu": mfu}


class Recorder:
    """Turns step results into journal lines and tracker calls."""

    def __init__(self, state: TrainState, tracker: Tracker, steps: int) -> None:
        self._state, self._tracker, self._steps = state, tracker, steps
        self._speed = Speed.of(state.model, state.world.size)
        if state.model.device.type == "cuda" and self._speed.utilisation(1.0) is None:
            tracker.log_text(f"mfu: {UNKNOWN_DEVICE} {self._speed.device!r}", step=state.step)

    def __call__(self, result: StepResult, measured: Mapping[str, float]) -> None:
        """Record one step and what was measured after it."""
        metrics = {
            "train/loss": result.loss,
            "train/lr_multiplier": result.lr_multiplier,
            "train/grad_norm": result.grad_norm,
            **measured,
        }
        self._state.journal.add("metrics", {"step": result.step, **metrics})
        speed = self._speed.metrics(result.tokens / result.seconds)
        times = {"step": result.step, "tokens": result.tokens, "seconds": result.seconds}
        self._state.journal.add("throughput", {**times, **speed})
        self._tracker.log({**metrics, **speed}, step=result.step, total_steps=self._steps)

    def summary(self, measure_name: str) -> dict[str, Any]:
        """Return the numbers of the finished run."""
        last = json.loads(self._state.journal.lines["metrics"][-1])
        tokens = sum(json.loads(line)["tokens"] for line in self._state.journal.lines["throughput"])
        seconds = self._state.seconds
        mfu = self._speed.utilisation(tokens / seconds)
        return {
            **{name: last[name] for name in ("train/loss", measure_name)},
            "parameters": parameter_count(self._state.model.config),
            "steps": self._state.step,
            "tokens": tokens,
            "flops": tokens * self._state.model.flops_per_token(),
            "seconds_training": seconds,
            "tokens_per_s": tokens / seconds,
            "mfu": UNKNOWN_DEVICE if mfu is None else mfu,
        }
