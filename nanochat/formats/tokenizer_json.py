"""The tokenizer as `tokenizer.json`, the form that the tokenizers library (and so transformers) reads.

Ids of ordinary text are equal on both sides: the split pattern is the same, and since both engines merge the
pair whose union has the lowest rank, every way to put a token together from two others is listed as a merge.
One difference remains and is intended: that library finds special tokens in text, where here
`<|bos|>` in a document is ordinary text. Its `split_special_tokens=True` gives ordinary ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nanochat.errors import DataError
from nanochat.formats.tokenizer_pickle import tokenizer_from
from nanochat.tokenizer.bpe_training import map_bytes, unmap_bytes
from nanochat.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")
_LARGEST_BYTES = 256 * 2**20  # a vocabulary of 65,536 takes about seven mebibytes


def write_tokenizer_json(tokenizer: Tokenizer, path: Path) -> None:
    """Write a `tokenizer.json`; the same tokenizer gives the same bytes."""
    merges = [[map_bytes(left), map_bytes(right)] for left, right in merged_pairs(tokenizer.ranks)]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(text, i) for text, i in _by_id(tokenizer.special_tokens)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": tokenizer.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _BYTE_LEVEL,
            ],
        },
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a word that is a token is that token, as in tiktoken
            "vocab": {map_bytes(token): rank for token, rank in _by_id(tokenizer.ranks)},
            "merges": merges,
        },
    }
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _added(text: str, token_id: int) -> dict[str, Any]:
    strict = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": text, **strict, "special": True}


def _by_id(table: Mapping[T, int]) -> list[tuple[T, int]]:
    return sorted(table.items(), key=lambda item: item[1])


def merged_pairs(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield every pair of tokens whose union is a token, in order of the union's rank."""
    lengths = {len(token) for token in ranks}
    for token, _ in _by_id(ranks):
        cuts = (cut for cut in range(1, len(token)) if cut in lengths and len(token) - cut in lengths)
        pairs = ((token[:cut], token[cut:]) for cut in cuts)
        known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def read_tokenizer_json(path: Path) -> Tokenizer:
    """Read a `tokenizer.json` that holds a byte-level BPE with a split pattern.

    Raises DataError where it is of another kind, or would give other ids here than there.
    """
    content = _content(path)
    try:
        model, added = content["model"], content["added_tokens"]
        if model["type"] != "BPE" or content.get("normalizer") is not None:
            raise DataError(f"{path} is not a byte-level BPE without normalizer", hint=_HINT)
        specials = {str(entry["content"]): _id(entry["id"]) for entry in added}
        vocab = {token: _id(i) for token, i in model["vocab"].items() if token not in specials}
        ranks = {unmap_bytes(token): i for token, i in vocab.items()}
        merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
        order = [vocab[left + right] for left, right in merges]
        pattern = _pattern(content["pre_tokenizer"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is not a byte-level BPE: {type(error).__name__}: {error}", hint=_HINT
        ) from error
    if pattern is None:
        raise DataError(f"{path}: its pre_tokenizer is not a split pattern followed by bytes", hint=_HINT)
    if order != sorted(order):
        raise DataError(f"{path}: its merges are not in order of the ids they make", hint=_HINT)
    return tokenizer_from(path, pattern, ranks, specials)


_HINT = "a nanochat tokenizer is needed: byte-level BPE, a split pattern, ids in order of the merges"


def _content(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes; at most {_LARGEST_BYTES:,} are read")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a tokenizer", hint=_HINT)
    return content


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str | None:
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else []
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, bytes_ = steps
    plain = not bytes_["use_regex"] and not bytes_["add_prefix_space"]
    isolated = split["behavior"] == "Isolated" and not split["invert"]
    return str(split["pattern"]["Regex"]) if plain and isolated else None


def _id(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a token id")
    return value
