"""The stage that turns text shards into token shards: one task per shard, large ones each in a process.

The encoder holds Python's lock for half of the time (two threads did 1.2 to 1.4 times the work of one); with
a process per shard, as many shards are encoded at once as the run has workers. What is written never depends
on where it was made or what ran beside it. Text stays as it is: line endings of any kind, duplicates, empty
documents (a null is one). A document may be as long as parquet allows, 2 GiB, and is encoded in windows; its
bytes and its tokens are held whole. The format of the files is `nanochat.data.text.token_shards`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.config import TOKEN_SHARD_FORMAT, TokenizeConfig
from nanochat.data.text.left_out import LeftOut, read_left_out
from nanochat.data.text.own_process import Report, in_own_process
from nanochat.data.text.token_shards import write_token_shard
from nanochat.errors import DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_DOCUMENTS = 1024
# From this size of packed text on (about 3 s of encoding) a process is worth its cost of 0.1 s, or of 1.5 s
# for the first one of a run.
_OWN_PROCESS_BYTES = 16 << 20


def tokenize_shard(
    config: TokenizeConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Turn `text.parquet` of the shard into `tokens.bin` and `stats.json`.

    With an input `contamination`, the documents that it lists are left out and counted as dropped.
    Raises DataError if documents, characters or bytes are not those that the text shard was counted with.
    """
    if config.format_version != TOKEN_SHARD_FORMAT:
        raise DataError(
            f"tokenize.format_version is {config.format_version}; this code writes {TOKEN_SHARD_FORMAT}"
        )
    text = inputs["shard"] / "text.parquet"
    left_out = read_left_out(inputs["contamination"]) if "contamination" in inputs else None
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - started, 1e-9)
        runtime.tracker.log({"throughput/documents_per_s": rate}, step=done, total_steps=total)

    if text.stat().st_size < _OWN_PROCESS_BYTES:
        stats = encode_shard(inputs["tokenizer"], text, left_out, out, lambda *_: runtime.raise_if_stopped())
    else:
        stats = in_own_process(
            encode_shard,
            inputs["tokenizer"],
            text,
            left_out,
            out,
            report=report,
            check_stop=runtime.raise_if_stopped,
            preload=(__name__,),
        )
    _require_same_counts(inputs["shard"] / "stats.json", stats)
    return {**stats, "bytes_per_token": stats["bytes"] / max(stats["tokens"] - stats["documents"], 1)}


def encode_shard(
    tokenizer: Path, text: Path, left_out: frozenset[int] | None, out: Path, report: Report
) -> dict[str, int]:
    """Encode a parquet file, except some documents, with the tokenizer of a folder; return the counts.

    What was left out is counted as `dropped_*`, unless nothing was meant to be (None).
    """
    total = pq.read_metadata(text).num_rows

    def batches() -> Iterator[list[bytes]]:
        done = 0
        for texts in read_texts(text):
            report(done, total)
            yield texts
            done += len(texts)
        report(done, total)

    if left_out is None:
        return write_token_shard(out, batches(), Tokenizer.load(tokenizer))
    leaving = LeftOut(left_out)
    kept = write_token_shard(out, leaving.rest_of(batches()), Tokenizer.load(tokenizer))
    stats = kept | {f"dropped_{name}": count for name, count in leaving.counts.items()}
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    return stats


def read_texts(path: Path) -> Iterator[list[bytes]]:
    """Yield the documents of a text shard in order, in UTF-8 and lists of at most 1,024; a null is empty."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["text"]):
            yield [text or b"" for text in batch.column(0).cast(pa.large_binary()).to_pylist()]


def _require_same_counts(path: Path, stats: Mapping[str, int]) -> None:
    """Compare with what was counted when the text arrived, where that is known."""
    if not path.exists():
        return
    for name, count in json.loads(path.read_text()).items():
        seen = stats[name] + stats.get(f"dropped_{name}", 0)
        if seen != count:
            raise DataError(
                f"{path.parent.name}: {seen} {name} went into the tokens, but the text has {count}",
                hint="the text is not the one that was counted; download it again: --force download",
            )
