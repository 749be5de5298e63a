"""The GPU check: everything that a GPU machine can prove in some minutes, in one command.

`python infra/gpu/check.py` (or `bash infra/gpu/check.sh` on a machine without this project's environment)
runs its parts one after the other, each in a process that is ended at its limit: is it right (`tests`), how
fast is each kernel (`kernels`), how fast is a whole training step (`step`), does a real training learn
(`training`). Each part writes what it finds to the results folder as soon as it has it; the last thing
printed is the table of goals. Exit status: 0, or 1 if a number was wrong or a part failed or did not end; a
goal that is missed is no failure. Needs Python and PyTorch; what a part needs besides is the part's business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kernels import measurement  # noqa: E402
from kernels.goals import goals_of  # noqa: E402

_GRACE_S = 15.0  # for a part to end by itself after its time
_GONE_S = 30.0  # for processes that were killed to be gone
_SUMMARY = "summary.md"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the check."""

    name: str
    arguments: tuple[str, ...]  # of Python
    weight: float  # its share of the time, beside the weights of the parts after it
    least_s: float  # it is left out if it would have less


PARTS = (
    Part(
        name="tests",
        arguments=(
            *("-m", "pytest", "-c", "tests/gpu/pytest.ini", "--rootdir", "."),
            *("--confcutdir", "tests/gpu", "tests/gpu"),
        ),
        weight=4,
        least_s=20,
    ),
    Part(name="kernels", arguments=("-m", "kernels.bench", "--choose"), weight=4, least_s=20),
    Part(name="step", arguments=("-m", "tests.benchmarks.bench_gpu_step"), weight=8, least_s=40),
    Part(name="training", arguments=("-m", "tests.benchmarks.gpu_training"), weight=3, least_s=30),
)


@dataclass(frozen=True)
class Outcome:
    """How a part ended; an empty `fault` is a good end."""

    part: str
    seconds: float
    fault: str = ""
    left_out: str = ""


def run_parts(parts: tuple[Part, ...], seconds: float, common: list[str], folder: Path) -> list[Outcome]:
    """Run the parts in order; time that one does not use goes to those after it."""
    end = time.monotonic() + seconds
    outcomes = []
    for index, part in enumerate(parts):
        left = max(end - time.monotonic(), 0.0)
        mine = left * part.weight / sum(later.weight for later in parts[index:])
        if mine < part.least_s:
            outcomes.append(Outcome(part.name, 0.0, left_out=f"{mine:.0f} s left, {part.least_s:.0f} needed"))
            continue
        outcomes.append(_run(part, mine, common, folder))
    return outcomes


def _run(part: Part, seconds: float, common: list[str], folder: Path) -> Outcome:
    _say(f"== {part.name}: up to {seconds:.0f} s")
    file = folder / f"{part.name}.json"
    file.unlink(missing_ok=True)  # of an earlier run
    inside = max(seconds - _GRACE_S, seconds / 2)
    command = [
        sys.executable,
        *part.arguments,
        *common,
        "--results",
        str(folder),
        "--seconds",
        f"{inside:.0f}",
    ]
    begin = time.monotonic()
    fault = ""
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, start_new_session=True)
    try:
        status = process.wait(timeout=seconds)
        if status:
            fault = f"ended with status {status}"
    except subprocess.TimeoutExpired:
        fault = f"did not end within {seconds:.0f} s"
    finally:
        _end(process)
    if not fault and not file.exists():
        fault = f"left no {file.name}"
    return Outcome(part.name, time.monotonic() - begin, fault)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it started, also what hangs on the GPU."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The others die a moment later, and what they hold of the GPU with them: the next part waits for that.
    deadline = time.monotonic() + _GONE_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def summary(outcomes: list[Outcome], folder: Path) -> tuple[str, bool]:
    """Return what the run has shown, in Markdown, and whether nothing was wrong."""
    found = {o.part: measurement.read(folder / f"{o.part}.json") for o in outcomes if _wrote(o, folder)}
    about = next(iter(found.values())).about if found else {}
    lines = ["# GPU check", "", ", ".join(f"{key} {value}" for key, value in about.items() if value), ""]
    lines += ["| part | seconds | right | wrong | end |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        checks = found[outcome.part].checks if outcome.part in found else []
        wrong = sum(not check["ok"] for check in checks)
        end = outcome.fault or (f"left out: {outcome.left_out}" if outcome.left_out else "whole")
        lines.append(f"| {outcome.part} | {outcome.seconds:.0f} | {len(checks) - wrong} | {wrong} | {end} |")
    lines += ["", *_wrong_numbers(found), *_goals(outcomes, found)]
    good = not any(o.fault for o in outcomes) and not any(part.wrong for part in found.values())
    lines += ["", "Nothing is wrong." if good else "SOMETHING IS WRONG: see above."]
    return "\n".join(lines) + "\n", good


def _wrote(outcome: Outcome, folder: Path) -> bool:
    return not outcome.left_out and (folder / f"{outcome.part}.json").exists()


def _wrong_numbers(found: dict[str, measurement.Measurement]) -> list[str]:
    wrong = [
        f"* WRONG, {name}: {check['name']}: {check['detail']}"
        for name, part in found.items()
        for check in part.checks
        if not check["ok"]
    ]
    return [*wrong, ""] if wrong else []


def _goals(outcomes: list[Outcome], found: dict[str, measurement.Measurement]) -> list[str]:
    lines = ["| goal | measured | limit | verdict |", "|---|---|---|---|"]
    for outcome in outcomes:
        values = found[outcome.part].goals if outcome.part in found else {}
        dry = outcome.part in found and found[outcome.part].about.get("device", "").startswith("cpu")
        for goal in goals_of(outcome.part):
            limit = f"{'at least' if goal.at_least else 'at most'} {goal.limit:g} {goal.unit}"
            value = values.get(goal.name)
            measured = "not measured" if value is None else f"{value:.4g}"
            verdict = "met" if value is not None and goal.met(value) else "MISSED"
            verdict = "" if value is None else "dry run" if dry else verdict
            lines.append(f"| {goal.name} | {measured} | {limit} | {verdict} |")
    return lines


def main() -> int:
    """Run the check as the command line says; return the exit status."""
    parser = measurement.arguments(__doc__)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", default=",".join(names), help="only these, in their order")
    options = parser.parse_args()
    asked = options.parts.split(",")
    if unknown := sorted(set(asked) - set(names)):
        parser.error(f"--parts: unknown {', '.join(unknown)}; there are {', '.join(names)}")
    if options.device == "cuda" and not measurement.torch.cuda.is_available():
        parser.error("no CUDA device here; `--device cpu --sizes tiny` runs every line on a CPU")
    folder = (options.results or measurement.folder_for(options.device)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--device", options.device, "--sizes", options.sizes]
    parts = tuple(part for part in PARTS if part.name in asked)
    outcomes = run_parts(parts, options.seconds, common, folder)
    text, good = summary(outcomes, folder)
    (folder / _SUMMARY).write_text(text, encoding="utf-8")
    print(text, end="")
    return 0 if good else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
