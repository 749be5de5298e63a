"""Token shards: the tokens of one text shard in one memory-mappable file.

`tokens.bin`, all numbers little-endian:

    bytes 0-63    header: magic "NCTOKENS", format version (u16), bytes per token (u16), vocabulary size
                  (u32), number of documents (u64), number of tokens (u64), vocabulary digest (32 bytes)
    then          the tokens, u16 where the vocabulary has at most 65,536 entries, else u32; each document
                  starts with bos; zero bytes up to the next multiple of 64
    then          number of documents + 1 offsets (u64): document i is tokens[offset[i] : offset[i + 1]]

The offsets come last so that a shard is written in one pass with bounded memory; the size of the file
follows from the header, so a truncated file is recognised without reading it. `stats.json` beside it holds
the counts. Hashing the bytes is the store's work, cutting them into rows that of `nanochat.data.batches`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from nanochat.config import TokenizeConfig
from nanochat.errors import DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

FILE_NAME = "tokens.bin"
FORMAT_VERSION = 1
_MAGIC = b"NCTOKENS"
_HEADER = struct.Struct("<8sHHIQQ32s")
_ALIGNMENT = 64
_BATCH_DOCUMENTS = 1024

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


class Vocabulary(Protocol):
    """What a tokenizer offers to the writing of shards."""

    pattern: str
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def special(self, name: str) -> int:
        """Return the id of a special token by its short name."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[npt.NDArray[Any]]:
        """Encode texts, without special tokens."""

    def token_bytes(self) -> npt.NDArray[np.int32]:
        """Return the length in bytes of each id, 0 for special tokens."""


def vocabulary_digest(tokenizer: Vocabulary) -> str:
    """Return the sha256 of everything that decides which text becomes which ids."""
    digest = hashlib.sha256(f"{tokenizer.vocab_size}\n{tokenizer.pattern}\n".encode())
    for token, rank in sorted(tokenizer.ranks.items(), key=lambda item: item[1]):
        digest.update(b"%d %s\n" % (rank, token.hex().encode()))
    for name, rank in sorted(tokenizer.special_tokens.items()):
        digest.update(f"{rank} {name}\n".encode())
    return digest.hexdigest()


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds every id of the vocabulary."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


@dataclass(frozen=True)
class TokenShard:
    """One opened shard; `tokens` and `doc_offsets` are read-only views of the mapped file."""

    path: Path
    tokens: Tokens
    doc_offsets: npt.NDArray[np.uint64]
    vocab_size: int
    digest: str  # of the vocabulary, see `vocabulary_digest`

    @classmethod
    def open(cls, folder: Path, digest: str | None = None) -> TokenShard:
        """Map the shard of `folder`; with `digest`, refuse one made with another vocabulary.

        Raises DataError for a file that is missing, cut short, or not what its header says.
        """
        path = folder / FILE_NAME
        header = _read_header(path)
        if digest is not None and header.digest != digest:
            raise DataError(
                f"{path}: its tokens are of vocabulary {header.digest[:12]}, not {digest[:12]}",
                hint="tokenize the shard again with this tokenizer",
            )
        # A plain view of the mapping: slicing np.memmap itself costs several times as much.
        data = np.memmap(path, mode="r").view(np.ndarray)
        ends = (_ALIGNMENT, _ALIGNMENT + header.token_bytes, header.offsets_start)
        tokens = data[ends[0] : ends[1]].view(header.dtype)
        offsets = data[ends[2] :].view(np.dtype("<u8"))
        lengths_ok = bool(np.all(offsets[1:] > offsets[:-1]))
        if offsets[0] != 0 or offsets[-1] != header.n_tokens or not lengths_ok:
            raise DataError(f"{path}: document offsets do not rise from 0 to {header.n_tokens} tokens")
        return cls(path, tokens, offsets, header.vocab_size, header.digest)

    @property
    def n_tokens(self) -> int:
        """Number of tokens, each document's bos included."""
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.doc_offsets) - 1

    def document(self, index: int) -> Tokens:
        """Return the tokens of one document, its bos first."""
        if not 0 <= index < self.n_documents:
            raise IndexError(f"document {index} of a shard with {self.n_documents}")
        return self.tokens[int(self.doc_offsets[index]) : int(self.doc_offsets[index + 1])]


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    vocab_size: int
    n_documents: int
    n_tokens: int
    digest: str

    def pack(self) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            FORMAT_VERSION,
            self.dtype.itemsize,
            self.vocab_size,
            self.n_documents,
            self.n_tokens,
            bytes.fromhex(self.digest),
        )

    @property
    def token_bytes(self) -> int:
        return self.n_tokens * self.dtype.itemsize

    @property
    def offsets_start(self) -> int:
        return _ALIGNMENT + -(-self.token_bytes // _ALIGNMENT) * _ALIGNMENT

    @property
    def file_bytes(self) -> int:
        return self.offsets_start + 8 * (self.n_documents + 1)


def _read_header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            raw = file.read(_ALIGNMENT)
            size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) < _ALIGNMENT or not raw.startswith(_MAGIC):
        raise DataError(f"{path}: not a token shard (starts with {raw[:8]!r}, not {_MAGIC!r})")
    _, version, itemsize, vocab_size, n_documents, n_tokens, digest = _HEADER.unpack(raw)
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: token shard format {version}; this code reads {FORMAT_VERSION}")
    dtype = token_dtype(vocab_size)
    if itemsize != dtype.itemsize:
        raise DataError(
            f"{path}: {itemsize} bytes per token do not fit a vocabulary of {vocab_size},"
            f" which takes {dtype.itemsize}"
        )
    header = _Header(dtype, vocab_size, n_documents, n_tokens, digest.hex())
    if size != header.file_bytes:
        raise DataError(
            f"{path}: {size} bytes, but its header says {header.file_bytes}"
            f" ({n_tokens} tokens in {n_documents} documents)",
            hint="the file was cut short or changed; tokenize the shard again",
        )
    return header


def tokenize_shard(
    config: TokenizeConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Turn `text.parquet` of the shard into `tokens.bin` and `stats.json`."""
    if config.format_version != FORMAT_VERSION:
        raise DataError(
            f"tokenize.format_version is {config.format_version}; this code writes {FORMAT_VERSION}"
        )
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    stats = write_token_shard(out, read_texts(inputs["shard"] / "text.parquet", runtime), tokenizer)
    return {**stats, "bytes_per_token": stats["bytes"] / max(stats["tokens"] - stats["documents"], 1)}


def read_texts(path: Path, runtime: Runtime | None = None) -> Iterator[list[str]]:
    """Yield the documents of a text shard in lists of at most 1,024, in file order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["text"]):
            if runtime is not None:
                runtime.raise_if_stopped()
            yield [text or "" for text in batch.column(0).to_pylist()]


def write_token_shard(out: Path, batches: Iterable[list[str]], tokenizer: Vocabulary) -> dict[str, int]:
    """Write the documents as a token shard below `out`; return its counts, also in `stats.json`.

    Raises DataError if the tokens of a batch do not hold exactly the bytes of its text.
    """
    digest = vocabulary_digest(tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    token_bytes = tokenizer.token_bytes().astype(np.int64)
    lengths: list[npt.NDArray[np.int64]] = []
    characters = text_bytes = n_tokens = 0
    out.mkdir(parents=True, exist_ok=True)
    with (out / FILE_NAME).open("wb") as file:
        file.write(bytes(_ALIGNMENT))
        for texts in batches:
            tokens, counts = _encode(texts, tokenizer, dtype)
            size = sum(len(text.encode()) for text in texts)
            held = int(token_bytes[tokens].sum())
            if held != size:
                raise DataError(
                    f"the tokens of {len(texts)} documents hold {held} bytes, their text {size}",
                    hint="the tokenizer loses text; train it again",
                )
            file.write(tokens.tobytes())
            lengths.append(counts)
            characters += sum(map(len, texts))
            text_bytes += size
            n_tokens += len(tokens)
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        header = _Header(dtype, tokenizer.vocab_size, len(offsets) - 1, n_tokens, digest)
        _finish(file, header, offsets.astype("<u8"))
    stats = {
        "documents": header.n_documents,
        "characters": characters,
        "bytes": text_bytes,
        "tokens": n_tokens,
    }
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    return stats


def _encode(
    texts: list[str], tokenizer: Vocabulary, dtype: np.dtype[Any]
) -> tuple[Tokens, npt.NDArray[np.int64]]:
    encoded = tokenizer.encode_batch(texts)
    counts = np.fromiter((len(ids) + 1 for ids in encoded), dtype=np.int64, count=len(encoded))
    tokens = np.empty(int(counts.sum()), dtype=dtype)
    position = 0
    bos = tokenizer.special("bos")
    for ids in encoded:
        tokens[position] = bos
        tokens[position + 1 : position + 1 + len(ids)] = ids
        position += 1 + len(ids)
    return tokens, counts


def _finish(file: BinaryIO, header: _Header, offsets: npt.NDArray[np.uint64]) -> None:
    file.write(bytes(header.offsets_start - _ALIGNMENT - header.token_bytes))
    file.write(offsets.tobytes())
    file.seek(0)
    file.write(header.pack())
