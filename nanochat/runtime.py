"""Where and how fast a stage runs: settings that never change a result and are never hashed.

A stage function has the form `(config, inputs, out, runtime) -> metrics`: `config` is hashed, everything
here is not. This module holds only plain data and the two protocols through which a stage talks to its
surroundings (restart_points and tracker), with the names that settings have there; it knows neither the store
nor MLflow nor Prefect.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nanochat.errors import Interrupted

DEVICES = r"^(cpu|cuda(:[0-9]+)?)$"
"""What a device is called: the CPU, all GPUs, or one of them."""


class Tracker(Protocol):
    """Receives what a running stage reports. Never raises, never blocks the stage."""

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Record numbers at a step; keys are `group/name`, such as `train/loss`."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings once."""

    def log_text(self, text: str, *, step: int) -> None:
        """Record a sample or remark made at a step."""

    def close(self) -> None:
        """Flush and stop."""


class RestartPoints(Protocol):
    """Where a running stage keeps its own restart points; emptied once the stage has finished."""

    def save(self, step: int, folder: Path) -> None:
        """Keep the files of `folder` as the restart point of `step`, atomically; older ones may go."""

    def latest(self) -> tuple[int, Path] | None:
        """Return the newest whole restart point as (step, local folder), or None."""


class NullTracker:
    """A tracker that forgets everything."""

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None: ...  # noqa: D102
    def log_params(self, params: Mapping[str, object]) -> None: ...  # noqa: D102
    def log_text(self, text: str, *, step: int) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class NoRestartPoints:
    """Keeps nothing: the stage starts from its beginning each time."""

    def save(self, step: int, folder: Path) -> None: ...  # noqa: D102

    def latest(self) -> tuple[int, Path] | None:  # noqa: D102
        return None


@dataclass(frozen=True)
class FolderRestartPoints:
    """Restart points in a local folder: for stage functions called directly."""

    root: Path

    def save(self, step: int, folder: Path) -> None:
        """Copy `folder`, then rename it into place and drop the older points."""
        target = self.root / f"{step:08d}"
        part = self.root / f".{step:08d}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        for old in self._steps()[:-1]:
            shutil.rmtree(self.root / f"{old:08d}")

    def latest(self) -> tuple[int, Path] | None:
        """Return the newest restart point."""
        steps = self._steps()
        return (steps[-1], self.root / f"{steps[-1]:08d}") if steps else None

    def _steps(self) -> list[int]:
        return sorted(int(p.name) for p in self.root.glob("[0-9]*")) if self.root.exists() else []


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings in one level of dotted names, as people read them; an empty level is a value."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Settings of one execution; none of them may change what is produced."""

    device: str = "cpu"  # of the form DEVICES
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    micro_batch_rows: int | None = None  # rows per forward pass; None: as many as suit the device and fit
    processes: int = 1  # ranks that make one artifact together; `nanochat.ranks.launch` starts them
    workers: int = field(default_factory=lambda: max(os.cpu_count() or 1, 2))  # shards handled at once
    restart_point_every_s: float = 30.0
    tracker: Tracker = field(default_factory=NullTracker)
    restart_points: RestartPoints = field(default_factory=NoRestartPoints)
    scratch: Path | None = None  # for temporary files, swept even after a crash; None: the system's folder
    partial: Path | None = None  # folder that outlives a crash: unfinished downloads of this very stage
    stop: threading.Event = field(default_factory=threading.Event)  # set when the run must end soon

    def raise_if_stopped(self) -> None:
        """Raise `Interrupted` once somebody has asked the run to end."""
        if self.stop.is_set():
            raise Interrupted("the run was asked to stop")
