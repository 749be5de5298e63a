"""What batches cost: from local disk beside what a GPU consumes, and with shards on S3 beside waiting.

Run with `uv run python -m tests.benchmarks.bench_loader`; it is not collected as a test.

Prints tokens/s of one process that makes int64 pairs of T=2048 as a ratio to what d20 on 8xH100 consumes per
GPU (1.1 M tokens/s over 8), at the first step and far on in the run; what packing wastes; with `--text` the
share of Python's lock in encoding a shard; and the share of its steps that a simulated trainer waits for one
GPU's rows, with the memory it takes, where the shards are in a store on S3 (SeaweedFS) whose every request is
late: as the pipeline does it (the store fetches a stage's inputs before the stage starts, the trainer reads
ahead), and, as the baseline, with every document read by range, when needed and ahead of time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from flows.run.execute import fetch_all
from flows.store import Record, Store
from flows.store.records import blob_name
from nanochat.data.text.batches import PretrainBatches
from nanochat.data.text.prefetch import Prefetch
from nanochat.data.text.token_shards import HEADER_BYTES, TokenShard, write_token_shard
from nanochat.data.text.tokenize import read_texts
from tests.benchmarks.measuring import hardware, measure, print_table
from tests.support.latency_proxy import slow_line
from tests.support.s3_server import BUCKET, find_weed, running_server

NEEDED = 1_100_000 / 8
"""Tokens per second and GPU of d20 on 8xH100."""
T, ROWS_PER_GPU = 2048, 32
BOS = 65_527


class Drawn:
    """Stands in for a tokenizer: a text is the seed and length of its tokens. Documents as in FineWeb-EDU."""

    vocab_size, pattern = 65_536, "."

    def __init__(self) -> None:
        self.ranks, self.special_tokens = {b"x": 0}, {"<|bos|>": BOS}

    def special(self, name: str) -> int:
        return BOS

    def encode_batch(self, texts: Sequence[bytes]) -> list[np.ndarray[Any, Any]]:
        rngs = (np.random.default_rng(int(text)) for text in texts)
        return [rng.integers(0, BOS, int(rng.lognormal(6.1, 0.95)) + 1) for rng in rngs]

    def token_bytes(self) -> np.ndarray[Any, Any]:
        return np.zeros(self.vocab_size, np.int32)


class Unchecked(bytes):
    """A text that claims to have no bytes: its drawn tokens hold none either."""

    def __len__(self) -> int:
        return 0


def draw_shards(folder: Path, shards: int, documents: int) -> list[TokenShard]:
    """Write token shards of random documents, about 700 tokens each."""
    for n in range(shards):
        seeds = [Unchecked(b"%d" % (n * documents + i)) for i in range(documents)]
        write_token_shard(
            folder / f"{n:05d}", [seeds[i : i + 1024] for i in range(0, documents, 1024)], Drawn()
        )
    return [TokenShard.open(folder / f"{n:05d}") for n in range(shards)]


def private_mb() -> float:
    """Return the memory of this process in MB, pages of mapped files left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


def bench_local(shards: list[TokenShard], steps: int) -> None:
    """Compare one process with what a GPU needs."""
    batches = PretrainBatches(shards, ROWS_PER_GPU, T, 1337, BOS)
    per_epoch = batches.tokens_per_epoch // (ROWS_PER_GPU * T)
    batches.batch(0), batches.batch(per_epoch)  # draw both orders

    def read(n: int, first: int) -> None:
        for step in range(first + n * steps, first + (n + 1) * steps):
            batches.batch(step)

    def read_windows(n: int) -> None:
        rng = np.random.default_rng(n)
        for _ in range(steps * ROWS_PER_GPU):
            tokens = shards[0].tokens
            begin = int(rng.integers(0, len(tokens) - T - 1))
            window = tokens[begin : begin + T + 1].astype(np.int64)
            window[:-1].copy(), window[1:].copy()

    before = private_mb()
    tokens = steps * ROWS_PER_GPU * T
    rows = []
    works: list[tuple[str, Callable[[int], object]]] = [
        ("random windows of one file, no documents (baseline)", read_windows),
        ("batches from step 0", partial(read, first=0)),
        (f"batches from step {per_epoch:,} (epoch 2)", partial(read, first=per_epoch)),
    ]
    baseline = None
    for name, work in works:
        took = measure(work)
        baseline = baseline or took
        per_s, per_cpu_s = tokens / took.median, tokens / took.cpu
        speed = f"{baseline.cpu / took.cpu:.2f}x"
        needs = (f"{per_s / NEEDED:.0f}x", f"{per_cpu_s / NEEDED:.0f}x")
        rows.append((name, took, f"{per_s / 1e6:.0f} M/s", speed, *needs))
    print_table(
        f"{steps} batches of {ROWS_PER_GPU} x {T} from {len(shards)} local shards with"
        f" {batches.tokens_per_epoch / 1e6:.0f} M tokens, median of 5 (least – most)",
        ("work", "time", "tokens", "of the baseline's speed (CPU)", "of a GPU's need", "by CPU time"),
        rows,
    )
    print(f"\nprivate memory {before:.0f} MB before, {private_mb():.0f} MB after")
    counts = batches.accounting(per_epoch)
    documents = sum(shard.n_documents for shard in shards)
    print(
        f"packing, one epoch: {counts['packing_waste']:.5%} of positions masked, none padded or dropped;"
        f" {counts['added_bos_inputs'] / counts['tokens_read']:.3%} of inputs are an added bos;"
        f" {counts['cut_documents'] / documents:.1%} of documents go on in another row;"
        f" drawing an epoch's order takes {order_seconds(batches):.3f} s"
    )


def order_seconds(batches: PretrainBatches) -> float:
    """Return how long drawing one epoch's order takes."""
    return statistics.median(measure(lambda n: batches._draw_order(n)).median for _ in range(3))


def bench_lock(text: Path, tokenizer: Path) -> None:
    """Print which share of encoding a shard blocks other threads, from what two threads gain."""
    from nanochat.tokenizer.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    batches = [batch for _, batch in zip(range(2), read_texts(text), strict=False)]

    def encode(_: int) -> None:
        with tempfile.TemporaryDirectory() as out:
            write_token_shard(Path(out), iter(batches), loaded)

    with ThreadPoolExecutor(2) as pool:
        both = measure(lambda _: list(pool.map(encode, range(2))))
    gain = 2 * measure(encode).median / both.median
    share = min(max(2 / gain - 1, 0.0), 1.0)  # Amdahl's law for two
    print(f"\nencoding: two threads do {gain:.2f}x the work of one: {share:.0%} of it holds Python's lock")


class ByRange(PretrainBatches):
    """The same batches from shards that stay on a remote service: each document is one request."""

    def __init__(self, urls: Sequence[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        options = {"config_kwargs": {"max_pool_connections": 32}}
        self._remote, _ = fsspec.core.url_to_fs(urls[0], **options)
        self._paths = [self._remote._strip_protocol(url) for url in urls]

    def _gather(self, pieces: Sequence[Any]) -> np.ndarray[Any, Any]:
        paths = [self._paths[shard] for shard, _, _ in pieces]
        begins = [HEADER_BYTES + 2 * begin for _, begin, _ in pieces]
        ends = [HEADER_BYTES + 2 * stop for _, _, stop in pieces]
        parts = self._remote.cat_ranges(paths, begins, ends, batch_size=32, on_error="raise")
        return np.frombuffer(b"".join(parts), np.uint16).astype(np.int64)


def bench_s3(shards: list[TokenShard], folder: Path, steps: int, step_s: float, latency_s: float) -> None:
    """Compare a trainer whose shards were fetched first with trainers that read by range."""
    weed = find_weed()
    if weed is None:
        print("\nno S3: the SeaweedFS binary `weed` cannot run here")
        return
    (folder / "s3").mkdir(parents=True)
    with running_server(weed, folder / "s3") as server, slow_line(server.endpoint, latency_s) as slow:
        os.environ.update(server.environment)
        url = f"s3://{BUCKET}/store"
        records = commit(Store.open(url), shards)
        os.environ["AWS_ENDPOINT_URL"] = slow
        fsspec.spec.AbstractFileSystem.clear_instance_cache()
        settings = (8 * ROWS_PER_GPU, T, 1337, BOS)

        started = time.perf_counter()
        fetch_all(Store.open(url, cache=folder / "cache"), records, folder / "inputs")
        fetch_s = time.perf_counter() - started
        here = PretrainBatches([TokenShard.open(p) for p in sorted((folder / "inputs").iterdir())], *settings)
        names = [blob_name(f.sha256) for r in records for f in r.files if f.path == "tokens.bin"]
        away = ByRange([f"{url}/{name}" for name in names], shards, *settings)

        def played(batches: PretrainBatches, ahead: int, count: int) -> tuple[str, ...]:
            make = partial(batches.batch, rows=slice(3 * ROWS_PER_GPU, 4 * ROWS_PER_GPU))
            if not ahead:
                return train(make, count, step_s)
            with Prefetch(make, 10**9, ahead=ahead) as batch:
                return train(batch, count, step_s)

        rows = [
            ("by range, when needed (baseline)", *played(away, 0, steps // 4)),
            ("by range, 8 batches ahead", *played(away, 8, steps)),
            ("fetched by the store, when needed", *played(here, 0, steps)),
            ("fetched by the store, 4 batches ahead", *played(here, 4, steps)),
        ]
    columns = ("shards", "steps", "wait per step", "longest wait", "share of step time")
    print_table(
        f"one GPU's {ROWS_PER_GPU} rows per step of {step_s:.3f} s, {latency_s * 1e3:.0f} ms added to each"
        f" request, load {os.getloadavg()[0]:.1f} at the end; the first step is not counted",
        (*columns, "CPU per step", "private MB at 1/4, 1/2, end"),
        rows,
    )
    size = sum(shard.path.stat().st_size for shard in shards)
    share = 22.4e9 / size * fetch_s / (4 * 3600)
    print(
        f"\nfetching {size / 1e6:.0f} MB before the start took {fetch_s:.1f} s"
        f" ({size / fetch_s / 1e6:.0f} MB/s); at this rate d20's 22.4 GB take {share:.2%} of its four hours"
    )


def commit(store: Store, shards: Sequence[TokenShard]) -> list[Record]:
    """Put shards into a store as their stage does."""
    named = {"stage": "tokenize", "payload": {}}
    return [
        store.commit(node=f"tokenize/{n}", key=f"{n:064d}", folder=shard.path.parent, **named)
        for n, shard in enumerate(shards)
    ]


def train(make: Callable[[int], object], steps: int, step_s: float) -> tuple[str, ...]:
    """Play a trainer that needs a batch every `step_s`; return what it waited."""
    make(0)
    waits, memory, cpu = [], [], time.process_time()
    gone = threading.Event()
    for step in range(1, steps + 1):
        started = time.perf_counter()
        make(step)
        waits.append(time.perf_counter() - started)
        memory.append(private_mb())
        gone.wait(step_s)
    mean = statistics.mean(waits)
    cpu = time.process_time() - cpu
    marks = (memory[steps // 4], memory[steps // 2], memory[-1])
    return (
        str(steps), f"{mean * 1e3:.2f} ms", f"{max(waits) * 1e3:.1f} ms", f"{mean / (mean + step_s):.2%}",
        f"{cpu / steps * 1e3:.0f} ms", ", ".join(f"{m:.0f}" for m in marks),
    )  # fmt: skip


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--documents", type=int, default=20_000, help="per shard")
    parser.add_argument("--steps", type=int, default=100, help="batches per measurement from local disk")
    parser.add_argument("--s3-steps", type=int, default=120, help="steps of the simulated run")
    parser.add_argument("--latency-ms", type=float, default=30.0)
    parser.add_argument("--text", type=Path, help="a text shard, to measure the lock with --tokenizer")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer folder")
    options = parser.parse_args()
    print(hardware())
    with tempfile.TemporaryDirectory() as scratch:
        shards = draw_shards(Path(scratch), options.shards, options.documents)
        bench_local(shards, options.steps)
        if options.text and options.tokenizer:
            bench_lock(options.text, options.tokenizer)
        bench_s3(
            shards,
            Path(scratch) / "s3",
            options.s3_steps,
            ROWS_PER_GPU * T / NEEDED,
            options.latency_ms / 1e3,
        )


if __name__ == "__main__":
    main()
