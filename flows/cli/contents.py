"""What is inside an artifact, where there is more to show than its files: tokens, conversations, overlaps.

Reads the store, changes nothing. `flows.cli.tables` decides how the result looks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.stages import STAGES
from flows.store import Record, Store

if TYPE_CHECKING:
    from nanochat.tokenizer.tokenizer import Tokenizer


def contents(store: Store, record: Record) -> dict[str, Any] | None:
    """Return what is in the artifact of a record as plain data, or None if there are only files to show.

    Raises Damaged if its bytes are not those of its record.
    """
    stage = STAGES.get(record.stage)
    if stage is None or stage.holds is None:
        return None
    describe = {"tokens": _token_shard, "conversations": _conversations, "overlap": _overlap}[stage.holds]
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = _tokenizer_of(store, record, Path(scratch) / "tokenizer")
        return describe(store.fetch(record, Path(scratch) / "artifact"), tokenizer)


def _token_shard(folder: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    from nanochat.data.shard_report import describe_shard
    from nanochat.data.text.token_shards import TokenShard

    return describe_shard(TokenShard.open(folder), tokenizer)


def _conversations(folder: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    from nanochat.data.chat.chat_tokens import PARTS, ChatTokens
    from nanochat.data.shard_report import describe_chat

    return describe_chat({part: ChatTokens.open(folder / part) for part in PARTS}, tokenizer)


def _overlap(folder: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    from nanochat.evals.contamination.overlap import FILE_NAME, Overlap, overlap_lines

    return overlap_lines(Overlap.read(folder / FILE_NAME))


def _tokenizer_of(store: Store, record: Record, scratch: Path) -> Tokenizer | None:
    """Return the tokenizer that an artifact was made with; None: it was collected, leaving only ids."""
    from nanochat.tokenizer.tokenizer import Tokenizer

    made_with = record.inputs.get("tokenizer")
    found = store.find(made_with["stage"], made_with["key"]) if isinstance(made_with, Mapping) else None
    return Tokenizer.load(store.fetch(found, scratch)) if found else None
