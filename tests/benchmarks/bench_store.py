"""What the store costs beside sha256 alone on the same bytes.

Run with `uv run python tests/benchmarks/bench_store.py`; it is not collected as a test.

Prints MB/s of hashing (the baseline), of `scan`, of commit to a local folder and of fetch; fingerprints of a
recipe per second and in MB/s; and the time of looking up thousands of records.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flows.fingerprint import canonical_json, fingerprint
from flows.store import Store
from flows.workspace import scan

_ROOT = Path(__file__).parents[2]


def hardware() -> str:
    """Return processor, cores and the commit that is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=_ROOT, check=False
    ).stdout.strip()
    return f"{name or platform.machine()}, {len(os.sched_getaffinity(0))} cores, commit {commit or 'unknown'}"


def seconds(work: Callable[[int], object], repeats: int = 5) -> float:
    """Return the median time of `work(n)`, n = 0, 1, …"""
    times = []
    for n in range(repeats):
        begin = time.perf_counter()
        work(n)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def bench_bytes(scratch: Path, megabytes: int, files: int) -> None:
    """Compare hashing alone with scan, commit and fetch of the same files."""
    folder = scratch / "out"
    folder.mkdir()
    for n in range(files):
        (folder / f"file{n}.bin").write_bytes(os.urandom(megabytes * 2**20 // files))
    stores = [Store.open(str(scratch / f"store{n}")) for n in range(5)]

    def hash_alone(_: int) -> None:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256").hexdigest()

    def commit(n: int) -> None:
        stores[n].commit(stage="bench", node="bench", key="0" * 64, payload={}, folder=folder)

    def commit_again(n: int) -> None:
        stores[0].commit(stage="bench", node="bench", key=f"{n:064d}", payload={}, folder=folder)

    def write_alone(n: int) -> None:
        for path in sorted(folder.iterdir()):
            target = scratch / f"copy{n}-{path.name}"
            shutil.copyfile(path, target)
            with target.open("rb") as file:
                os.fsync(file.fileno())

    baseline = seconds(hash_alone)
    rows = [
        ("sha256 alone (baseline)", baseline),
        ("copy and fsync alone", seconds(write_alone)),
        ("scan: list and hash", seconds(lambda _: scan(folder))),
        ("commit, new bytes", seconds(commit)),
        ("commit, bytes already there", seconds(commit_again)),
        ("fetch", seconds(lambda n: stores[0].fetch(stores[0].resolve("bench"), scratch / f"in{n}"))),
    ]
    print(f"\n{megabytes} MB in {files} files      seconds      MB/s   of the baseline's speed")
    for name, took in rows:
        print(f"{name:30} {took:7.3f} {megabytes / took:10.0f} {baseline / took:10.2f}x")


def bench_fingerprint() -> None:
    """Compare fingerprints of a payload of usual size with sha256 of its text alone."""
    from nanochat.config import Recipe

    payload = {
        "stage": "pretrain",
        "config": Recipe(name="bench", depth=20).model_dump(mode="json"),
        "inputs": ["0" * 64] * 240,
    }
    text = canonical_json(payload).encode()
    alone = seconds(lambda _: [hashlib.sha256(text).hexdigest() for _ in range(200)]) / 200
    whole = seconds(lambda _: [fingerprint(payload) for _ in range(200)]) / 200
    print(
        f"\nfingerprint of {len(text)} bytes: {whole * 1e6:.0f} us, {len(text) / whole / 1e6:.1f} MB/s;",
        end=" ",
    )
    print(f"sha256 alone {alone * 1e6:.0f} us, {len(text) / alone / 1e6:.0f} MB/s ({alone / whole:.3f}x)")


def bench_lookup(scratch: Path, counts: tuple[int, ...]) -> None:
    """Show that looking up records grows linearly."""
    store, folder = Store.open(str(scratch / "many")), scratch / "small"
    folder.mkdir()
    refs = []
    print("\nrecords looked up at once     seconds   us each")
    for n in range(max(counts)):
        (folder / "file").write_text(str(n))
        key = fingerprint(n)
        store.commit(stage="tokenize", node=f"tokenize/{n}", key=key, payload={"n": n}, folder=folder)
        refs.append(("tokenize", key))
        if n + 1 in counts:
            took = seconds(lambda _: store.find_many(refs))
            print(f"{n + 1:23d} {took:13.3f} {took / (n + 1) * 1e6:9.1f}")


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    options = parser.parse_args()
    print(hardware())
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        bench_bytes(Path(scratch), options.megabytes, files=4)
        bench_fingerprint()
        bench_lookup(Path(scratch), (600, 1200, 2400, 4800))


if __name__ == "__main__":
    main()
