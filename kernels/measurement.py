"""What one part of a GPU run leaves behind: a file of rows, checks and goals, rewritten after each entry.

So whatever ends the run early, what was measured is kept. The parts share their command line (`arguments`)
and the form of the file, `<results>/<part>.json`, which `read` reads back. Timing is in `kernels.timing`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kernels.goals import goals_of
from kernels.language import AVAILABLE, triton

RESULTS = Path(__file__).parent / "results"
SIZES = ("full", "tiny")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every part of a GPU run is called with."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", choices=SIZES, default="full", help="tiny: a dry run, on a CPU too")
    parser.add_argument("--seconds", type=float, default=480.0, help="leave out what does not fit")
    parser.add_argument("--results", type=Path, help="default: kernels/results/<device>")
    return parser


def folder_for(device: str) -> Path:
    """Return where results of the machine's GPU are kept, or those of a dry run on a CPU."""
    if device == "cpu":
        return RESULTS.parents[1] / ".gpu/dry-run"
    return RESULTS / torch.cuda.get_device_name().lower().replace(" ", "_")


def about(device: str) -> dict[str, str]:
    """Return the device, versions and commit that numbers apply to."""
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"cpu ({platform.machine()})",
        "driver": printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        if cuda
        else "",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if cuda else "",
        "triton": str(triton.__version__) if AVAILABLE else "",
        "python": platform.python_version(),
        "commit": os.environ.get("NANOCHAT_COMMIT") or printed("git", "rev-parse", "--short", "HEAD"),
        "date": time.strftime("%Y-%m-%d"),
    }


@dataclass
class Measurement:
    """The rows, checks and goals of one part so far; `add_…` writes the file."""

    part: str
    folder: Path
    about: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    goals: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, part: str, options: argparse.Namespace) -> Measurement:
        """Begin the part's file where the command line says."""
        return cls(part, options.results or folder_for(options.device), about(options.device))

    @property
    def path(self) -> Path:
        """Return the file."""
        return self.folder / f"{self.part}.json"

    @property
    def wrong(self) -> list[str]:
        """Return the names of the checks that failed."""
        return [check["name"] for check in self.checks if not check["ok"]]

    def add_row(self, **numbers: Any) -> None:
        """Keep one line of a table."""
        self.rows.append(numbers)
        self._write()

    def add_check(self, name: str, ok: bool, detail: str = "") -> None:
        """Keep whether something is right: one wrong check fails the whole run."""
        self.checks.append({"name": name, "ok": bool(ok), "detail": detail})
        self._write()

    def set_goal(self, name: str, value: float) -> None:
        """Keep the value of one of the part's goals."""
        if name not in {goal.name for goal in goals_of(self.part)}:
            raise KeyError(f"{name!r} is not a goal of the part {self.part!r} (kernels.goals)")
        self.goals[name] = value
        self._write()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {"about": self.about, "rows": self.rows, "checks": self.checks, "goals": self.goals}
        fresh = self.path.with_suffix(".part")
        fresh.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
        fresh.replace(self.path)


def read(path: Path) -> Measurement:
    """Read the file of a part."""
    held = json.loads(path.read_text(encoding="utf-8"))
    return Measurement(path.stem, path.parent, **held)


def printed(*command: str) -> str:
    """Return what a command prints; "unknown" where there is no such command or it prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=RESULTS)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
