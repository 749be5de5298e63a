"""What is in token shards, for people: counts, lengths, whether the hashes match, and samples as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nanochat.data.chat.chat_tokens import ChatTokens
from nanochat.data.text.token_shards import TokenShard
from nanochat.tokenizer.tokenizer import Tokenizer

_SAMPLE_TOKENS = 64


def describe_shard(shard: TokenShard, tokenizer: Tokenizer | None, samples: int = 3) -> dict[str, Any]:
    """Return statistics of a shard as plain data; with its tokenizer also bytes and decoded samples.

    Raises DataError if the tokens are not those that were written.
    """
    shard.verify()
    lengths = np.diff(shard.doc_offsets).astype(np.int64)
    report: dict[str, Any] = {
        "format": f"{shard.tokens.dtype}, vocabulary of {shard.header.vocab_size:,} ({shard.digest[:12]})",
        "documents": shard.n_documents,
        "tokens": shard.n_tokens,
        "distinct_tokens": len(np.unique(shard.tokens)),
    }
    if shard.n_documents:
        report |= {
            "shortest_document_tokens": int(lengths.min()),
            "median_document_tokens": float(np.median(lengths)),
            "longest_document_tokens": int(lengths.max()),
        }
    if tokenizer is not None:
        size = int(tokenizer.token_bytes()[shard.tokens].sum(dtype=np.int64))
        report["text_bytes"] = size
        report["bytes_per_token"] = size / max(shard.n_tokens - shard.n_documents, 1)
        report["samples"] = [_sample(shard, tokenizer, i) for i in _spread(shard.n_documents, samples)]
    return report


def _spread(count: int, samples: int) -> list[int]:
    """Return at most `samples` different numbers below `count`, spread from the first to the last."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(samples, count))})


def _sample(shard: TokenShard, tokenizer: Tokenizer, index: int) -> dict[str, Any]:
    ids = shard.document(index)
    text = tokenizer.decode(ids[1 : 1 + _SAMPLE_TOKENS].tolist())
    return {"document": index, "tokens": len(ids), "text": text, "whole": len(ids) <= 1 + _SAMPLE_TOKENS}


def describe_chat(
    parts: Mapping[str, ChatTokens], tokenizer: Tokenizer | None, samples: int = 3
) -> dict[str, Any]:
    """Return statistics of rendered conversations by part; with their tokenizer also some of the first part.

    A sample is in pieces: text that is a target and text that is not, in turn. Raises DataError if the
    tokens are not those that were written.
    """
    report: dict[str, Any] = {}
    for name, chat in parts.items():
        chat.shard.verify()
        report[f"{name}_conversations"] = len(chat)
        report[f"{name}_tokens"] = chat.shard.n_tokens
        report[f"{name}_targets"] = int(chat.mask.sum())
        report[f"{name}_truncated"] = chat.truncated
    if tokenizer is not None:
        chat = next(iter(parts.values()))
        report["conversations"] = [_conversation(chat, tokenizer, i) for i in _spread(len(chat), samples)]
    return report


def _conversation(chat: ChatTokens, tokenizer: Tokenizer, index: int) -> dict[str, Any]:
    span = chat.span(index)
    ids, mask = chat.shard.tokens[span], chat.mask[span]
    turns = np.flatnonzero(np.diff(mask)) + 1
    pieces = [
        {"target": bool(mask[begin]), "text": tokenizer.decode(ids[begin:end].tolist())}
        for begin, end in zip([0, *turns], [*turns, len(ids)], strict=True)
    ]
    return {"conversation": index, "tokens": len(ids), "pieces": pieces}
