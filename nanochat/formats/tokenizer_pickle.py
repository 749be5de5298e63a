"""nanochat's published tokenizer files: `tokenizer.pkl` and `token_bytes.pt`.

A pickle can run any code, so it is read by an unpickler that admits one global, tiktoken's `Encoding`, and
replaces it with a record of its state. The file does not make tiktoken itself build anything.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import tiktoken

from nanochat.errors import DataError
from nanochat.formats import restricted_pickle
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.writing import whole_file

_LARGEST_BYTES = 256 * 2**20  # a vocabulary of 65,536 takes about one mebibyte


class _EncodingState:
    """Stands in for tiktoken's Encoding and keeps the pickled state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_tokenizer_pickle(path: Path) -> tuple[str, dict[bytes, int], dict[str, int]]:
    """Return split pattern, ranks and special tokens of a `tokenizer.pkl`, running no code of the file."""
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise DataError(f"{path} has {size:,} bytes; a tokenizer has {_LARGEST_BYTES:,} at most")
    allowed = {("tiktoken.core", "Encoding"): _EncodingState}
    loaded = restricted_pickle.load(path.read_bytes(), path, allowed)
    state = loaded.state if isinstance(loaded, _EncodingState) else None
    if not isinstance(state, dict):
        raise DataError(
            f"{path} holds {type(loaded).__name__}, not a tiktoken Encoding",
            hint="tokenizer.pkl is what upstream's tokenizer training writes",
        )
    pattern, ranks, specials = (state.get(k) for k in ("pat_str", "mergeable_ranks", "special_tokens"))
    if not (isinstance(pattern, str) and _is_table(ranks, bytes) and _is_table(specials, str)):
        raise DataError(f"{path} holds an Encoding without pattern, ranks and special tokens")
    return pattern, ranks, specials  # type: ignore[return-value]


def load_tokenizer_pickle(path: Path) -> Tokenizer:
    """Read a `tokenizer.pkl` as a tokenizer with the same ids."""
    pattern, ranks, specials = read_tokenizer_pickle(path)
    return tokenizer_from(path, pattern, ranks, specials)


def tokenizer_from(
    source: Path, pattern: str, ranks: dict[bytes, int], specials: dict[str, int]
) -> Tokenizer:
    """Build a tokenizer from tables of a file; raise DataError naming it where they do not make one."""
    if ranks and specials and min(specials.values()) < len(ranks):
        raise DataError(
            f"{source}: special token id {min(specials.values())} lies among the {len(ranks)} others;"
            " they must come last"
        )
    try:
        return Tokenizer(ranks, specials, pattern)
    except DataError as error:
        raise DataError(f"{source}: {error}", hint=error.hint) from error


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
    # By its path, for the archive to hold the file's name as upstream's does; and not beside `path`, since
    # PyTorch leaves the name out where a folder's has letters beyond ASCII.
    with whole_file(path) as part, tempfile.TemporaryDirectory() as plain:
        torch.save(lengths, Path(plain, path.name))
        shutil.copyfile(Path(plain, path.name), part)


def _is_table(table: object, key: type) -> bool:
    return isinstance(table, dict) and all(type(k) is key and type(v) is int for k, v in table.items())
