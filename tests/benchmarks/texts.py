"""Text for benchmarks: the documents of a folder of shards, and more of it from files on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

DOCUMENT_CHARS = 10_000
_SUFFIXES = {".py", ".pyi", ".h", ".hpp", ".c", ".cpp", ".js", ".ts", ".md", ".rst", ".txt", ".html", ".json"}
_LARGEST_FILE = 4 << 20
_SHARD_DOCUMENTS = 16_384


def shard_files(folder: Path) -> list[Path]:
    """Return the text shards of a folder, by name."""
    return sorted(folder.glob("**/*.parquet"))


def documents(files: Iterable[Path]) -> Iterator[str]:
    """Yield the documents of text shards."""
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(1024, columns=["text"]):
                yield from (text or "" for text in batch.column(0).to_pylist())


def machine_text(folders: Iterable[Path]) -> Iterator[str]:
    """Yield the text files below some folders in pieces, each content once."""
    seen: set[bytes] = set()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.suffix not in _SUFFIXES or not file.is_file() or file.stat().st_size > _LARGEST_FILE:
                continue
            raw = file.read_bytes()
            digest = hashlib.sha256(raw).digest()
            if digest in seen:
                continue
            seen.add(digest)
            text = raw.decode(errors="ignore")
            for start in range(0, len(text), DOCUMENT_CHARS):
                yield text[start : start + DOCUMENT_CHARS]


def write_text(out: Path, texts: Iterable[str], size_bytes: int) -> int:
    """Write documents as text shards until they hold `size_bytes`; return how much they hold."""
    out.mkdir(parents=True, exist_ok=True)
    shard: list[str] = []
    size = n_shards = 0

    def flush() -> None:
        nonlocal shard, n_shards
        table = pa.table({"text": shard})
        pq.write_table(table, out / f"shard_{n_shards:05d}.parquet", compression="zstd", row_group_size=1024)
        shard, n_shards = [], n_shards + 1

    for text in texts:
        shard.append(text)
        size += len(text.encode())
        if len(shard) == _SHARD_DOCUMENTS:
            flush()
        if size >= size_bytes:
            break
    if shard:
        flush()
    return size


def rows(folder: Path, path: str, *fields: str) -> list[str]:
    """Return the named fields of a JSONL or parquet file as texts, one a row."""
    file = folder / path
    table = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_ndjson(file)
    return table.select(pl.concat_str(fields, separator="\n")).to_series().drop_nulls().to_list()
