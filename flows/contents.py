"""What is inside an artifact, where there is more to show than its files: token shards, overlaps with tasks.

Reads the store, changes nothing. How the result looks is `flows.tables`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flows.stage import Record
from flows.store import Store


def contents(store: Store, record: Record) -> dict[str, Any] | None:
    """Return what is in the artifact of a record as plain data, or None if only files are to be told.

    Raises DataError if it is damaged.
    """
    if record.stage == "contamination":
        return _overlap(store, record)
    if record.stage != "tokenize":
        return None
    from nanochat.data.shard_report import describe_shard
    from nanochat.data.token_shards import TokenShard
    from nanochat.tokenizer.tokenizer import Tokenizer

    made_with = record.inputs.get("tokenizer", {})
    tokenizer_record = store.find(made_with["stage"], made_with["key"]) if made_with else None
    with tempfile.TemporaryDirectory() as scratch:
        shard = TokenShard.open(store.fetch(record, Path(scratch) / "shard"))
        tokenizer = None
        if tokenizer_record:  # else it was collected, and only ids are left
            tokenizer = Tokenizer.load(store.fetch(tokenizer_record, Path(scratch) / "tokenizer"))
        return describe_shard(shard, tokenizer)


def _overlap(store: Store, record: Record) -> dict[str, Any]:
    from nanochat.evals.overlap import FILE_NAME, Overlap, overlap_lines

    with tempfile.TemporaryDirectory() as scratch:
        return overlap_lines(Overlap.read(store.fetch(record, Path(scratch) / "overlap") / FILE_NAME))
