"""Token shards: the tokens of one text shard in one memory-mappable file.

`tokens.bin`, all numbers little-endian:

    bytes 0-127   header: magic "NCTOKENS", format version (u16), bytes per token (u16), vocabulary size
                  (u32), number of documents (u64), number of tokens (u64), vocabulary digest (32 bytes),
                  sha256 of the tokens' bytes, sha256 of the offsets' bytes (32 bytes each)
    then          the tokens, u16 where the vocabulary has at most 65,536 entries, else u32; each document
                  starts with bos; zero bytes up to the next multiple of 64
    then          number of documents + 1 offsets (u64): document i is tokens[offset[i] : offset[i + 1]]

The offsets come last so that a shard is written in one pass with bounded memory; the size of the file
follows from the header, so a truncated file is recognised without reading it. Opening checks the offsets
against their hash, `verify` the tokens. `stats.json` beside it holds the counts. The stage that makes shards
is `nanochat.data.text.tokenize`; cutting tokens into rows is the work of `nanochat.data.text.batches`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from nanochat.config import TOKEN_SHARD_FORMAT, bytes_per_token
from nanochat.errors import DataError
from nanochat.tokenizer.split import characters

FILE_NAME = "tokens.bin"
HEADER_BYTES = 128
_MAGIC = b"NCTOKENS"
_HEADER = struct.Struct("<8sHHIQQ32s32s32s")
_ALIGNMENT = 64
_COUNTED_AT_ONCE = 1 << 22  # tokens whose lengths in bytes are in memory

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_Part = tuple[Tokens, npt.NDArray[np.int64]]  # tokens, and the lengths of the documents in them


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

    def encode_batch(self, texts: Sequence[bytes]) -> Sequence[npt.NDArray[Any]]:
        """Encode texts, which are UTF-8, without special tokens."""

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
    return np.dtype(f"<u{bytes_per_token(vocab_size)}")


@dataclass(frozen=True)
class TokenShard:
    """One opened shard; `tokens` and `doc_offsets` are read-only views of the mapped file."""

    path: Path
    tokens: Tokens
    doc_offsets: npt.NDArray[np.uint64]
    header: Header

    @classmethod
    def open(cls, folder: Path, digest: str | None = None) -> TokenShard:
        """Map the shard of `folder`; with `digest`, refuse one made with another vocabulary.

        Raises DataError for a file that is missing, cut short, or does not match its header.
        """
        path = folder / FILE_NAME
        try:
            with path.open("rb") as file:
                header = Header.unpack(file.read(HEADER_BYTES), path.stat().st_size, str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        header.require_vocabulary(digest, str(path))
        # A plain view of the mapping: slicing np.memmap itself costs several times as much.
        data = np.memmap(path, mode="r").view(np.ndarray)
        tokens = data[HEADER_BYTES : HEADER_BYTES + header.token_bytes].view(header.dtype)
        offsets = header.checked_offsets(data[header.offsets_start :], str(path))
        return cls(path, tokens, offsets, header)

    @property
    def digest(self) -> str:
        """Digest of the vocabulary, see `vocabulary_digest`."""
        return self.header.digest

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
        return self.span(index, index + 1)

    def span(self, first: int, stop: int) -> Tokens:
        """Return the tokens of the documents `first` to `stop - 1`, one after the other."""
        if not 0 <= first <= stop <= self.n_documents:
            raise IndexError(f"documents {first} to {stop - 1} of a shard with {self.n_documents}")
        return self.tokens[int(self.doc_offsets[first]) : int(self.doc_offsets[stop])]

    def __iter__(self) -> Iterator[Tokens]:
        """Yield every document in order."""
        return (self.document(i) for i in range(self.n_documents))

    def verify(self) -> None:
        """Read all tokens and raise DataError if they are not those that were written."""
        if hashlib.sha256(self.tokens.data).hexdigest() != self.header.tokens_sha256:
            raise _damaged(str(self.path), "tokens")


@dataclass(frozen=True)
class Header:
    """The first bytes of a shard, and what follows from them."""

    vocab_size: int
    n_documents: int
    n_tokens: int
    digest: str  # of the vocabulary, see `vocabulary_digest`
    tokens_sha256: str
    offsets_sha256: str

    def pack(self) -> bytes:
        """Return the bytes of the header."""
        digests = (bytes.fromhex(each) for each in (self.digest, self.tokens_sha256, self.offsets_sha256))
        sizes = (self.dtype.itemsize, self.vocab_size, self.n_documents, self.n_tokens)
        return _HEADER.pack(_MAGIC, TOKEN_SHARD_FORMAT, *sizes, *digests)

    @classmethod
    def unpack(cls, raw: bytes, file_bytes: int, name: str) -> Header:
        """Read the header of a file of `file_bytes`; raise DataError, with `name`, where they do not fit."""
        if len(raw) < HEADER_BYTES or not raw.startswith(_MAGIC):
            raise DataError(f"{name}: not a token shard (starts with {raw[:8]!r}, not {_MAGIC!r})")
        _, version, itemsize, vocab_size, n_documents, n_tokens, *digests = _HEADER.unpack(raw)
        if version != TOKEN_SHARD_FORMAT:
            raise DataError(
                f"{name}: token shard format {version}; this code reads {TOKEN_SHARD_FORMAT}",
                hint="tokenize the shard again",
            )
        header = cls(vocab_size, n_documents, n_tokens, *(each.hex() for each in digests))
        if itemsize != header.dtype.itemsize:
            raise DataError(
                f"{name}: {itemsize} bytes per token do not fit a vocabulary of {vocab_size},"
                f" which takes {header.dtype.itemsize}"
            )
        if file_bytes != header.file_bytes:
            raise DataError(
                f"{name}: {file_bytes} bytes, but its header says {header.file_bytes}"
                f" ({n_tokens} tokens in {n_documents} documents)",
                hint="the file was cut short or changed; tokenize the shard again",
            )
        return header

    def require_vocabulary(self, digest: str | None, name: str) -> None:
        """Raise DataError if a digest is given and the tokens are of another vocabulary."""
        if digest is not None and self.digest != digest:
            raise DataError(
                f"{name}: its tokens are of vocabulary {self.digest[:12]}, not {digest[:12]}",
                hint="tokenize the shard again with this tokenizer",
            )

    def checked_offsets(self, raw: npt.NDArray[np.uint8] | bytes, name: str) -> npt.NDArray[np.uint64]:
        """Return the document offsets in `raw`; raise DataError if they are not those that were written."""
        offsets = np.frombuffer(raw, np.dtype("<u8"))
        rising = bool(np.all(offsets[1:] > offsets[:-1]))
        if hashlib.sha256(offsets.data).hexdigest() != self.offsets_sha256:
            raise _damaged(name, "document offsets")
        if offsets[0] != 0 or offsets[-1] != self.n_tokens or not rising:
            raise DataError(f"{name}: document offsets do not rise from 0 to {self.n_tokens} tokens")
        return offsets

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a token."""
        return token_dtype(self.vocab_size)

    @property
    def token_bytes(self) -> int:
        """Size of all tokens."""
        return self.n_tokens * self.dtype.itemsize

    @property
    def offsets_start(self) -> int:
        """Where in the file the offsets begin."""
        return HEADER_BYTES + -(-self.token_bytes // _ALIGNMENT) * _ALIGNMENT

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.offsets_start + 8 * (self.n_documents + 1)


def _damaged(name: str, part: str) -> DataError:
    return DataError(
        f"{name}: its {part} are not those that were written (their sha256 differs)",
        hint="the file was changed; tokenize the shard again",
    )


def write_token_shard(out: Path, batches: Iterable[list[bytes]], tokenizer: Vocabulary) -> dict[str, int]:
    """Write documents (UTF-8) as a token shard below `out`; return its counts, also in `stats.json`.

    Raises DataError if the tokens of a batch do not hold exactly the bytes of its text.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    token_bytes = tokenizer.token_bytes().astype(np.int64)
    n_characters = text_bytes = 0

    def encoded() -> Iterator[_Part]:
        nonlocal n_characters, text_bytes
        for texts in batches:
            tokens, counts = _encode(texts, tokenizer, dtype)
            size = sum(map(len, texts))
            _require_same_bytes(len(texts), _bytes_in(tokens, token_bytes), size)
            yield tokens, counts
            n_characters += sum(map(characters, texts))
            text_bytes += size

    header = _write(out, encoded(), tokenizer)
    stats = {
        "documents": header.n_documents,
        "characters": n_characters,
        "bytes": text_bytes,
        "tokens": header.n_tokens,
    }
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    return stats


def write_ids(out: Path, documents: Iterable[Sequence[int]], vocabulary: Vocabulary) -> dict[str, int]:
    """Write documents that are already tokens, none of them empty; return their counts."""
    dtype = token_dtype(vocabulary.vocab_size)
    parts = ((np.array(ids, dtype), np.array([len(ids)], np.int64)) for ids in documents)
    header = _write(out, parts, vocabulary)
    return {"documents": header.n_documents, "tokens": header.n_tokens}


def _write(out: Path, parts: Iterable[_Part], vocabulary: Vocabulary) -> Header:
    """Write tokens and, of each part, the lengths of the documents in it; return the header."""
    lengths: list[npt.NDArray[np.int64]] = []
    sha256 = hashlib.sha256()
    out.mkdir(parents=True, exist_ok=True)
    with (out / FILE_NAME).open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for tokens, counts in parts:
            file.write(tokens.data)
            sha256.update(tokens.data)
            lengths.append(counts)
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum().astype("<u8")
        header = Header(
            vocabulary.vocab_size,
            len(offsets) - 1,
            int(offsets[-1]),
            vocabulary_digest(vocabulary),
            sha256.hexdigest(),
            hashlib.sha256(offsets.data).hexdigest(),
        )
        _finish(file, header, offsets)
    return header


def _bytes_in(tokens: Tokens, token_bytes: npt.NDArray[np.int64]) -> int:
    parts = (tokens[i : i + _COUNTED_AT_ONCE] for i in range(0, len(tokens), _COUNTED_AT_ONCE))
    return sum(int(token_bytes[part].sum()) for part in parts)


def _require_same_bytes(documents: int, held: int, size: int) -> None:
    if held != size:
        raise DataError(
            f"the tokens of {documents} documents hold {held} bytes, their text {size}",
            hint="the tokenizer loses text; train it again",
        )


def _encode(texts: list[bytes], tokenizer: Vocabulary, dtype: np.dtype[Any]) -> _Part:
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


def _finish(file: BinaryIO, header: Header, offsets: npt.NDArray[np.uint64]) -> None:
    file.write(bytes(header.offsets_start - HEADER_BYTES - header.token_bytes))
    file.write(offsets.data)
    file.seek(0)
    file.write(header.pack())
