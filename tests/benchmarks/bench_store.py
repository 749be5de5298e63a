"""What the store costs beside sha256 alone on the same bytes.

Run with `uv run python tests/benchmarks/bench_store.py`; it is not collected as a test.

Prints MB/s of hashing (the baseline), of `scan`, of commit to a local folder and of fetch; fingerprints of a
recipe per second and in MB/s; and the time of looking up thousands of records.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from flows.store import Store
from flows.store.fingerprint import canonical_json, fingerprint
from flows.store.folders import scan
from tests.benchmarks.measuring import hardware, measure, print_table


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

    baseline = measure(hash_alone)
    rows = [
        ("sha256 alone (baseline)", baseline),
        ("copy and fsync alone", measure(write_alone)),
        ("scan: list and hash", measure(lambda _: scan(folder))),
        ("commit, new bytes", measure(commit)),
        ("commit, bytes already there", measure(commit_again)),
        ("fetch", measure(lambda n: stores[0].fetch(stores[0].resolve("bench"), scratch / f"in{n}"))),
    ]
    print_table(
        f"{megabytes} MB in {files} files, median of 5 (least – most)",
        ("work", "time", "MB/s", "of the baseline's speed"),
        [
            (name, took, f"{megabytes / took.median:.0f}", f"{baseline.median / took.median:.2f}x")
            for name, took in rows
        ],
    )


def bench_fingerprint() -> None:
    """Compare fingerprints of a payload of usual size with sha256 of its text alone."""
    from nanochat.config import Recipe

    payload = {
        "stage": "pretrain",
        "config": Recipe(name="bench", depth=20).model_dump(mode="json"),
        "inputs": ["0" * 64] * 240,
    }
    text = canonical_json(payload).encode()
    alone = measure(lambda _: [hashlib.sha256(text).hexdigest() for _ in range(200)]).over(200)
    whole = measure(lambda _: [fingerprint(payload) for _ in range(200)]).over(200)
    print_table(
        f"key of a payload of {len(text):,} bytes",
        ("work", "time", "MB/s", "of the baseline's speed"),
        [
            (name, took, f"{len(text) / took.median / 1e6:.1f}", f"{alone.median / took.median:.3f}x")
            for name, took in (("sha256 alone (baseline)", alone), ("fingerprint", whole))
        ],
    )


def bench_lookup(scratch: Path, counts: tuple[int, ...]) -> None:
    """Show that looking up records grows linearly."""
    store, folder = Store.open(str(scratch / "many")), scratch / "small"
    folder.mkdir()
    refs, rows = [], []
    for n in range(max(counts)):
        (folder / "file").write_text(str(n))
        key = fingerprint(n)
        store.commit(stage="tokenize", node=f"tokenize/{n}", key=key, payload={"n": n}, folder=folder)
        refs.append(("tokenize", key))
        if n + 1 in counts:
            took = measure(lambda _: store.find_many(refs))
            rows.append((f"{n + 1:,}", took, took.over(n + 1)))
    print_table("records looked up at once", ("records", "time", "each"), rows)


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
