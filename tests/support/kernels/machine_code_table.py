"""The recorded machine code of every kernel: `kernels/results/machine_code.csv`.

`uv run python -m tests.support.kernels.machine_code_table` compiles all cases for all architectures (about a
minute) and writes the rows of the Triton that it runs under (`.venv-oldest/bin/python -m` …, after `just
oldest`, those of the oldest); `tests/aot/test_machine_code.py` compares with them.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from pathlib import Path

import triton

from kernels import configs
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import ARCHES, CASES, DTYPES, Case
from tests.support.kernels.machine_code import MachineCode, inspect

PATH = Path(__file__).parents[3] / "kernels/results/machine_code.csv"
VERSION = ".".join(triton.__version__.split(".")[:2])  # each compiles to other machine code
_KEY = ("arch", "kernel", "variant", "case", "shape", "bits")
_COUNTS = tuple(field.name for field in dataclasses.fields(MachineCode))
Key = tuple[str, ...]
# The compiler is not quite deterministic: attention's dkv came out with 2,080, 2,096 and 2,112 instructions.
_SLACK = {"instructions": 1.02, "overlapped": 0.95, "bound_tflops": 0.98}


def compiled(case: Case, arch: int) -> dict[Key, MachineCode]:
    """Compile a case's kernels for an architecture, each in all of its variants."""
    found: dict[Key, MachineCode] = {}
    for variants in variant_sets(case, arch):
        with configs.trying(**variants), dry_run(arch) as launches:
            case.run(DTYPES[case.bits])
        for launch in launches:
            kernel = launch.name.removeprefix("_").removesuffix("_kernel")
            key = (str(arch), kernel, variants[kernel], case.name, case.shape, str(case.bits))
            if key not in found:
                found[key] = inspect(launch.kernel)
    return found


def variant_sets(case: Case, arch: int) -> list[dict[str, str]]:
    """Return which variant each kernel of a case uses in each of the runs that together use all."""
    names = {kernel: variants_of(case, kernel, arch) for kernel in case.kernels}
    runs = max(map(len, names.values()))
    return [{kernel: own[min(run, len(own) - 1)] for kernel, own in names.items()} for run in range(runs)]


def variants_of(case: Case, kernel: str, arch: int) -> list[str]:
    """Return the names of a kernel's configurations for a case."""
    rows = [r for r in configs.TABLE if r[1:] == (kernel, case.shape, case.bits) and r.arch <= arch]
    return [config.name for config in configs.candidates(max(rows))]


def recorded(version: str = VERSION) -> dict[Key, MachineCode]:
    """Read the rows of one Triton."""
    rows = (row for row in _rows() if row["triton"] == version)
    return {tuple(row[name] for name in _KEY): _parse(row) for row in rows}


def worse(now: MachineCode, before: MachineCode) -> list[str]:
    """Return in words what got worse."""
    costs = ("registers", "stack", "spills", "shared", "instructions", "serialized", "barriers")
    grown = [n for n in costs if getattr(now, n) > getattr(before, n) * _SLACK.get(n, 1)]
    merits = ("overlapped", "bound_tflops")
    fallen = [n for n in merits if getattr(now, n) < getattr(before, n) * _SLACK[n]]
    return [f"{name} {getattr(before, name)} -> {getattr(now, name)}" for name in (*grown, *fallen)]


def _rows() -> list[dict[str, str]]:
    with PATH.open(newline="") as file:
        return list(csv.DictReader(file))


def _parse(row: dict[str, str]) -> MachineCode:
    counts = {name: int(row[name]) for name in _COUNTS if name != "serialized"}
    return MachineCode(**counts, serialized=row["serialized"] == "True")


def main() -> None:
    columns = ("triton", *_KEY, *_COUNTS)
    rows = [tuple(row[name] for name in columns) for row in _rows() if row["triton"] != VERSION]
    with tempfile.TemporaryDirectory() as cache:
        triton.knobs.cache.dir = cache
        for arch in ARCHES:
            for case in CASES:
                for key, code in compiled(case, arch).items():
                    rows.append((VERSION, *key, *dataclasses.astuple(code)))
    with PATH.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *sorted(rows, key=lambda row: row[0])])
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
