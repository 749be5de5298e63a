"""The conversations of a chat stage as tokens: rendered once, kept as token shards with a mask.

An artifact has two folders, `train` and `val`, each with

    tokens.bin   a token shard (`nanochat.data.text.token_shards`) whose documents are the conversations,
                 in the order of the shuffled mixture
    mask.bin     one bit per token, the first in the lowest bit of a byte: set where the assistant is trained

How a conversation is rendered is decided by `nanochat.tokenizer.chat_format`, how rows are filled by
`nanochat.data.chat.chat_batches`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nanochat.config import ChatDataConfig, held_out_rows
from nanochat.data.chat.tasks import mixture
from nanochat.data.text.token_shards import TokenShard, write_ids
from nanochat.errors import DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import Conversation, render
from nanochat.tokenizer.tokenizer import Tokenizer

PARTS = ("train", "val")
MASK_FILE = "mask.bin"

Item = TypeVar("Item")

_REPORT_EVERY = 1000


@dataclass(frozen=True)
class ChatTokens:
    """Rendered conversations, mapped from their files."""

    shard: TokenShard
    mask: npt.NDArray[np.bool_]
    """Of each token, whether it is a target."""
    truncated: int
    """Conversations that reached the longest length."""

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
    metrics: dict[str, int] = {}
    done = 0

    def told(conversations: Sequence[Conversation]) -> Iterator[Conversation]:
        nonlocal done
        for conversation in conversations:
            yield conversation
            done += 1
            if done % _REPORT_EVERY == 0 or done == total:
                runtime.raise_if_stopped()
                runtime.tracker.log({}, step=done, total_steps=total)

    for part, conversations in parts.items():
        stats = write_chat_tokens(out / part, told(conversations), tokenizer, config.max_tokens)
        metrics |= {f"{part}/{name}": value for name, value in stats.items()}
    return metrics


def write_chat_tokens(
    folder: Path, conversations: Iterator[Conversation], tokenizer: Tokenizer, max_tokens: int
) -> dict[str, int]:
    """Write conversations, each cut off at `max_tokens`; return their counts, also in `stats.json`."""
    masks: list[npt.NDArray[np.uint8]] = []
    truncated = 0

    def rendered() -> Iterator[list[int]]:
        nonlocal truncated
        for conversation in conversations:
            ids, mask = render(tokenizer, conversation, max_tokens)
            masks.append(np.array(mask, np.uint8))
            truncated += len(ids) >= max_tokens
            yield ids

    counts = write_ids(folder, rendered(), tokenizer)
    mask = np.concatenate([np.empty(0, np.uint8), *masks])
    np.packbits(mask, bitorder="little").tofile(folder / MASK_FILE)
    stats = {**counts, "targets": int(mask.sum()), "truncated": truncated}
    (folder / "stats.json").write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")
    return stats


def chat_data(root: Path, config: ChatDataConfig) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Load those that train, and those that validate: a mixture of their own, or the training one's end."""
    training = mixture(root, config.mixture, config.seed, own=True)
    if config.validation:
        return training, mixture(root, config.validation, config.seed)
    return held_out(training)


def held_out(conversations: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Split a shuffled mixture: its end (`held_out_rows`) validates, the rest trains.

    Rows that a mixture repeats may be on both sides.
    """
    if len(conversations) < 2:
        raise DataError(
            f"the mixture has {len(conversations)} conversations; at least 2 are needed, one to validate",
            hint="give the stage's mixture at least one data set",
        )
    count = held_out_rows(len(conversations))
    return conversations[:-count], conversations[-count:]
