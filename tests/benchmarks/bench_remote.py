"""What commands ask of a store on S3 that holds thousands of records: requests, and seconds on a slow line.

Run with `uv run python -m tests.benchmarks.bench_remote`; it is not collected as a test.

A server (SeaweedFS) on this machine, 30 ms added to each request. Each command runs twice: with an empty
local cache, and again. The baseline asks for the size and then for the bytes of every record.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner

from flows.cli.app import app
from flows.store import ArtifactFile, Record, Store
from flows.store.fingerprint import fingerprint
from flows.store.records import record_name, to_bytes
from nanochat import recipes
from tests.benchmarks.measuring import hardware, print_table
from tests.support.latency_proxy import slow_line
from tests.support.requests_sent import counted_requests
from tests.support.s3_server import BUCKET, find_weed, running_server
from tests.support.stand_ins import pretend_to_run

URL = f"s3://{BUCKET}/bench"
SHARDS = 240


def fill(store: Store, folder: Path, count: int) -> None:
    """Write records of many runs: shards of text and tokens, and models that were made from them."""
    folder.mkdir()
    (folder / "result").write_text("the same for all")
    files = store.commit(stage="tasks", node="tasks", key="0" * 64, payload={}, folder=folder).files
    records = [record for n in range(count // 4) for record in _records(n, files)]
    store.storage.each(lambda r: store.storage.write(record_name(r.stage, r.key), to_bytes(r)), records)


def _records(n: int, files: tuple[ArtifactFile, ...]) -> list[Record]:
    def record(stage: str, node: str, inputs: dict[str, Any]) -> Record:
        payload = {"stage": stage, "version": 1, "config": {"n": n}, "inputs": {}}
        made = {"seconds": 2.0, "finished_at": "2026-01-01T00:00:00+00:00"}
        return Record(
            stage=stage, node=node, key=fingerprint(payload), payload=payload, files=files, inputs=inputs,
            provenance=made,
        )  # fmt: skip

    def line(of: Record) -> dict[str, str]:
        return {"stage": of.stage, "node": of.node, "key": of.key, "digest": of.digest}

    text = record("download", f"download/shard_{n:05d}", {})
    tokens = record("tokenize", f"tokenize/shard_{n:05d}", {"shard": line(text)})
    model = record("pretrain", "pretrain", {"train_tokens": [line(tokens)] * SHARDS})
    return [text, tokens, model, record("sft", "sft", {"model": line(model)})]


def command(*words: str) -> None:
    """Run a command on the store."""
    result = CliRunner().invoke(app, [*words, "--store", URL])
    if result.exception:
        raise result.exception


def read_everything() -> None:
    """Ask for size and bytes of each record."""
    storage = Store.open(URL).storage
    storage.each(lambda name: (storage.found(name), storage.read(name)), storage.listing("records"))


def measured(work: Callable[[], None]) -> str:
    """Do the work; return its requests and seconds."""
    with counted_requests() as sent:
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
    return f"{len(sent):,} ({took:.1f} s)"


def rows_of(home: Path, commands: Sequence[str], note: str = "") -> list[tuple[str, str, str]]:
    """Run each command with an empty cache and again."""
    rows = []
    for words in commands:
        shutil.rmtree(home / "cache", ignore_errors=True)
        run = partial(command, *words.split())
        rows.append((f"`{words}`{note}", measured(run), measured(run)))
    return rows


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    options = parser.parse_args()
    weed = find_weed()
    if weed is None:
        raise SystemExit("the SeaweedFS binary `weed` cannot run here")
    print(hardware())
    with tempfile.TemporaryDirectory() as name, running_server(weed, _new(Path(name, "s3"))) as server:
        scratch = Path(name)
        home = {"NANOCHAT_HOME": str(scratch / "home")}
        slow = slow_line(server.endpoint, options.latency_ms / 1000)
        with mock.patch.dict(os.environ, {**server.environment, **home}), slow as address:
            fill(Store.open(URL), scratch / "out", options.records)
            with mock.patch.dict(os.environ, AWS_ENDPOINT_URL=address):
                rows = [("size and bytes of every record (baseline)", measured(read_everything), "")]
                rows += rows_of(scratch / "home", ("plan d20", "ls", "ls sft", "inspect sft"))
            pretend_to_run(recipes.find("d20"), Store.open(URL), _new(scratch / "made"))
            with mock.patch.dict(os.environ, AWS_ENDPOINT_URL=address):
                rows += rows_of(scratch / "home", ("plan d20",), ", all cached")
    print_table(
        f"{options.records:,} records on S3, {options.latency_ms:g} ms added to each request",
        ("command", "requests (time)", "again"),
        rows,
    )


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
