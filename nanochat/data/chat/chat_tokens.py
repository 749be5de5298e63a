"""The conversations of a chat stage as tokens: rendered once, kept as token shards with a mask.

An artifact has two folders, `train` and `val`, each with

    tokens.bin   a token shard (`nanochat.data.text.token_shards`) whose documents are the conversations,
                 in the order of the shuffled mixture
    mask.bin     one bit per token, the first in the lowest bit of a byte: set where the token is a target

and beside them `rows.json`: of each task, how many conversations are used, cut, skipped and held out.

Which conversations there are is decided by `nanochat.data.chat.mixture`, how one is rendered by
`nanochat.tokenizer.chat_format`, how rows are filled by `nanochat.data.chat.chat_batches`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.config import ChatDataConfig
from nanochat.data.chat.mixture import Mixture, chat_data
from nanochat.data.chat.row_counts import RowCounts, notes
from nanochat.data.chat.task_files import is_own_task
from nanochat.data.text.token_shards import TokenShard, write_ids
from nanochat.errors import DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import Conversation, render
from nanochat.tokenizer.tokenizer import Tokenizer

PARTS = ("train", "val")
MASK_FILE = "mask.bin"
ROWS_FILE = "rows.json"

_REPORT_EVERY = 1000


@dataclass(frozen=True)
class ChatTokens:
    """Rendered conversations, mapped from their files."""

    shard: TokenShard
    mask: npt.NDArray[np.bool_]
    """Of each token, whether it is a target."""
    truncated: int
    """Conversations that were cut to the longest length."""

    @classmethod
    def open(cls, folder: Path, digest: str | None = None) -> ChatTokens:
        """Map one part of an artifact; refuse one of another vocabulary (`digest`), or a damaged one."""
        shard = TokenShard.open(folder, digest)
        path = folder / MASK_FILE
        packed = np.fromfile(path, np.uint8) if path.exists() else np.empty(0, np.uint8)
        if len(packed) != -(-shard.n_tokens // 8):
            raise DataError(
                f"{path}: {len(packed)} bytes do not mark {shard.n_tokens} tokens",
                hint="the file was cut short or belongs to another shard; render the conversations again",
            )
        mask = np.unpackbits(packed, count=shard.n_tokens, bitorder="little").view(np.bool_)
        stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
        return cls(shard, mask, stats["truncated"])

    def __len__(self) -> int:
        """Return the number of conversations."""
        return self.shard.n_documents

    def span(self, index: int) -> slice:
        """Return which tokens are a conversation's."""
        return slice(int(self.shard.doc_offsets[index]), int(self.shard.doc_offsets[index + 1]))


def render_chat(
    config: ChatDataConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Render the conversations that a chat stage trains and validates on. `inputs`: tokenizer, tasks."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    parts = dict(zip(PARTS, chat_data(inputs["tasks"], config), strict=True))
    total = sum(map(len, parts.values()))
    counts: defaultdict[str, RowCounts] = defaultdict(RowCounts)
    metrics: dict[str, Any] = {}
    done = 0

    def rendered(part: str, rows: Mixture) -> Iterator[Rendered]:
        nonlocal done
        for conversation, place in zip(rows, rows.places, strict=True):
            row = Rendered.of(conversation, tokenizer, config)
            if part == "train":
                counts[place.task].trained(row.tokens, config.max_tokens, has_target=any(row.mask))
            elif not config.validation:
                counts[place.task].held_out += 1
            yield row
            done += 1
            if done % _REPORT_EVERY == 0 or done == total:
                runtime.raise_if_stopped()
                runtime.tracker.log({}, step=done, total_steps=total)

    for part, rows in parts.items():
        stats = write_chat_tokens(out / part, rendered(part, rows), tokenizer)
        metrics |= {f"{part}/{name}": value for name, value in stats.items()}
    by_task = {task: asdict(counts[task]) for task in sorted(counts)}
    (out / ROWS_FILE).write_text(json.dumps(by_task, indent=1) + "\n", encoding="utf-8")
    return {**metrics, "rows": by_task, "notes": notes(counts, config)}


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation as tokens, cut to the longest length."""

    ids: list[int]
    mask: list[int]  # 1 where a token is a target
    tokens: int  # before it was cut

    @classmethod
    def of(cls, conversation: Conversation, tokenizer: Tokenizer, config: ChatDataConfig) -> Rendered:
        """Render a conversation for a stage."""
        every = config.targets == "all"
        ids, mask = render(tokenizer, conversation, max_tokens=None, every_token=every)
        return cls(ids=ids[: config.max_tokens], mask=mask[: config.max_tokens], tokens=len(ids))


def write_chat_tokens(folder: Path, rows: Iterable[Rendered], tokenizer: Tokenizer) -> dict[str, int]:
    """Write rendered conversations; return their counts, also in `stats.json`."""
    masks: list[npt.NDArray[np.uint8]] = []
    truncated = 0

    def noted() -> Iterator[list[int]]:
        nonlocal truncated
        for row in rows:
            masks.append(np.array(row.mask, np.uint8))
            truncated += row.tokens > len(row.ids)
            yield row.ids

    counts = write_ids(folder, noted(), tokenizer)
    mask = np.concatenate([np.empty(0, np.uint8), *masks])
    np.packbits(mask, bitorder="little").tofile(folder / MASK_FILE)
    stats = {**counts, "targets": int(mask.sum()), "truncated": truncated}
    (folder / "stats.json").write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")
    return stats


def has_own_rows(folder: Path) -> bool:
    """Return whether rows of the user's own are trained on in the artifact of `render_chat`."""
    by_task = json.loads((folder / ROWS_FILE).read_text(encoding="utf-8"))
    return any(is_own_task(task) and counts["used"] for task, counts in by_task.items())
