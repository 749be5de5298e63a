"""nanochat's published tokenizer files: `tokenizer.pkl` and `token_bytes.pt`.

A pickle can run any code, so it is read by an unpickler that admits one global, tiktoken's `Encoding`, and
replaces it by a record of its state. tiktoken itself is not asked to build anything.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Literal

import tiktoken

from nanochat.errors import DataError
from nanochat.tokenizer.tokenizer import Tokenizer


class _EncodingState:
    """Stands in for tiktoken's Encoding and keeps the pickled state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _EncodingState
        raise DataError(
            f"the tokenizer pickle asks for {module}.{name}; only tiktoken.core.Encoding is allowed"
        )


def read_tokenizer_pickle(path: Path) -> tuple[str, dict[bytes, int], dict[str, int]]:
    """Return split pattern, ranks and special tokens of a `tokenizer.pkl`, running no code of the file."""
    try:
        loaded = _RestrictedUnpickler(io.BytesIO(path.read_bytes())).load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} is not a readable pickle: {error}") from error
    state = loaded.state if isinstance(loaded, _EncodingState) else None
    if not isinstance(state, dict):
        raise DataError(f"{path} does not hold a tiktoken Encoding")
    pattern, ranks, specials = (state.get(k) for k in ("pat_str", "mergeable_ranks", "special_tokens"))
    if not (isinstance(pattern, str) and _is_table(ranks, bytes) and _is_table(specials, str)):
        raise DataError(f"{path} holds an Encoding without pattern, ranks and special tokens")
    return pattern, ranks, specials  # type: ignore[return-value]


def load_tokenizer_pickle(path: Path) -> Tokenizer:
    """Read a `tokenizer.pkl` as a tokenizer with the same ids."""
    pattern, ranks, specials = read_tokenizer_pickle(path)
    return Tokenizer(ranks, specials, pattern)


def write_tokenizer_pickle(tokenizer: Tokenizer, path: Path) -> None:
    """Write a `tokenizer.pkl` that plain `pickle.load` turns into a tiktoken Encoding."""
    encoding = tiktoken.Encoding(
        "rustbpe",  # the name that upstream's files carry
        pat_str=tokenizer.pattern,
        mergeable_ranks=tokenizer.ranks,
        special_tokens=tokenizer.special_tokens,
    )
    path.write_bytes(pickle.dumps(encoding, protocol=4))


def write_token_bytes(tokenizer: Tokenizer, path: Path, mode: Literal["decoded", "raw"] = "decoded") -> None:
    """Write `token_bytes.pt`: int32 (vocab_size,), bytes per token, 0 for special tokens.

    `decoded` counts as upstream did in October 2025: each bad UTF-8 sequence as U+FFFD, three bytes. `raw`
    counts the token's own bytes.
    """
    import torch

    lengths = torch.from_numpy(tokenizer.token_bytes())
    if mode == "decoded":
        for rank in tokenizer.ranks.values():
            lengths[rank] = len(tokenizer.decode([rank]).encode("utf-8"))
    torch.save(lengths, path)


def _is_table(table: object, key: type) -> bool:
    return isinstance(table, dict) and all(type(k) is key and type(v) is int for k, v in table.items())
