"""Where a result comes from: commit, code, package versions, hardware, seconds and dollars of one execution.

Read only by people and the model card; nothing here is part of a key.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import psutil

from flows.plan.code_digest import code_digest
from flows.stage import Stage
from nanochat.runtime import Runtime

_PACKAGES = ("torch", "numpy", "polars", "pyarrow", "sentencepiece", "tiktoken", "prefect", "mlflow")


def describe(
    stage: Stage, started: float, dollars_per_hour: float | None, runtime: Runtime
) -> dict[str, Any]:
    """Describe the execution of a stage that began at `started` (Unix time) and ends now."""
    finished = time.time()
    seconds = finished - started
    known, dirty = commit()
    return {
        "started_at": _iso(started),
        "finished_at": _iso(finished),
        "seconds": round(seconds, 3),
        "dollars": None if dollars_per_hour is None else round(seconds / 3600 * dollars_per_hour, 6),
        "commit": known,
        "dirty": dirty,
        "code_digest": code_digest(stage),
        "versions": _versions(),
        "packages": _packages(),
        "hardware": hardware(),
        "device": runtime.device,
        "threads": runtime.threads,
        "processes": runtime.processes,
    }


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory and accelerators of this machine."""
    gpus = _gpus()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpus[0] if gpus else None,
        "gpus": len(gpus),
    }


def _gpus() -> list[str]:
    if "torch" not in sys.modules:  # a stage that computes has imported it; others need not pay for it
        return []
    import torch  # another thread may be importing it: this waits for it

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


@cache
def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def commit() -> tuple[str | None, bool | None]:
    """Return the commit of this code and whether it was changed since, or None for both."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # not the commit of whatever it is installed in
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None  # installed from a package: the code digest still identifies the code


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _packages() -> dict[str, str]:
    """Return name and version of everything that is installed, for a bill of materials."""
    named = ((each.metadata["Name"], each.version) for each in distributions())
    return dict(sorted((re.sub(r"[-_.]+", "-", name).lower(), found) for name, found in named if name))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
