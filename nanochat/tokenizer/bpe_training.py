"""Train byte-pair merges on counted words, with SentencePiece as the engine.

Words are mapped byte by byte to printable characters, so that no word can collide with SentencePiece's row
format or its reserved characters, and any byte can be part of a piece. The result is a table of ranks as
tiktoken uses it. The same rows give the same table, whatever the number of threads.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import tiktoken

from nanochat.errors import ConfigError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [b for b in range(256) if b not in set(_PRINTABLE)]
BYTE_TO_CHAR: dict[int, str] = {b: chr(b) for b in _PRINTABLE} | {
    b: chr(256 + i) for i, b in enumerate(_OTHERS)
}
"""One printable character per byte, GPT-2's table."""
CHAR_TO_BYTE: dict[str, int] = {c: b for b, c in BYTE_TO_CHAR.items()}

_MAX_PIECE = 512  # SentencePiece's own limit
_TO_CHARS = {b: ord(c) for b, c in BYTE_TO_CHAR.items()}


def map_bytes(raw: bytes) -> str:
    """Write bytes as printable characters."""
    return raw.decode("latin-1").translate(_TO_CHARS)


def unmap_bytes(text: str) -> bytes:
    """Undo `map_bytes`."""
    return bytes(CHAR_TO_BYTE[c] for c in text)


def train_ranks(words: Iterable[tuple[str, int]], n_tokens: int) -> dict[bytes, int]:
    """Return `n_tokens` tokens with their ranks: the 256 bytes, then the merges in order.

    Raises `ConfigError` with the possible maximum where the words support fewer merges.
    """
    counted = list(words)
    trained = _train(counted, n_tokens)
    if isinstance(trained, int):  # the engine's own limit, which counts merges of frequency 0
        attainable = _train(counted, trained)
        assert not isinstance(attainable, int), f"SentencePiece refused its own limit of {trained}"
        raise _too_large(
            n_tokens, _supported(list(_ranks(attainable, trained)), [word for word, _ in counted])
        )
    ranks = _ranks(trained, n_tokens)
    supported = _supported(list(ranks), [word for word, _ in counted])
    if supported < n_tokens:
        raise _too_large(n_tokens, supported)
    return ranks


def _train(counted: Sequence[tuple[str, int]], n_tokens: int) -> SentencePieceProcessor | int:
    """Return the trained model, or the engine's limit where `n_tokens` is above it."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_rows(counted),
            input_format="tsv",
            model_writer=model,
            model_type="bpe",
            vocab_size=n_tokens + 1,  # and the unknown piece, which is dropped
            character_coverage=1.0,
            required_chars="".join(CHAR_TO_BYTE),
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            split_digits=False,
            max_sentencepiece_length=_MAX_PIECE,
            max_sentence_length=1 << 24,
            byte_fallback=False,
            unk_id=0,
            unk_piece="\n",  # impossible in a row, so that no word is taken for it
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            input_sentence_size=0,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        limit = re.search(r"value <= (\d+)", str(error))
        if limit is None:
            raise
        return int(limit[1]) - 1
    return SentencePieceProcessor(model_proto=model.getvalue())


def _rows(counted: Sequence[tuple[str, int]]) -> Iterator[str]:
    total = sum(count for _, count in counted)
    for word, count in counted:
        yield f"{map_bytes(word.encode())}\t{count}"
    # A character much rarer than 1 in 10^8 would be dropped from the alphabet; alone it forms no pair.
    for char in CHAR_TO_BYTE:
        yield f"{char}\t{total // 1_000_000 + 1}"


def _ranks(trained: SentencePieceProcessor, n_tokens: int) -> dict[bytes, int]:
    pieces = sorted((-trained.get_score(i), trained.id_to_piece(i)) for i in range(1, len(trained)))
    ranks = {bytes([b]): b for b in range(256)}
    for _, piece in pieces:
        if len(piece) > 1:
            ranks[unmap_bytes(piece)] = len(ranks)
    assert len(ranks) == n_tokens, f"{len(ranks)} tokens instead of {n_tokens}"
    return ranks


def _supported(tokens: Sequence[bytes], words: Sequence[str]) -> int:
    """Count the tokens up to the last whose merge really occurs.

    SentencePiece goes on with merges of frequency 0 when nothing is left; counts fall from merge to merge,
    so these are together at the end.
    """
    encoded = [word.encode() for word in words]

    def occurs(index: int) -> bool:
        holders = [word.decode() for word in encoded if tokens[index] in word]
        if not holders:
            return False
        encoding = tiktoken.Encoding(
            "prefix",
            pat_str=r"[\s\S]+",
            mergeable_ranks={token: rank for rank, token in enumerate(tokens[: index + 1])},
            special_tokens={},
        )
        return any(index in encoding.encode_ordinary(word) for word in holders)

    low, high = 256, len(tokens)  # tokens[:low] occur, tokens[high:] do not
    while low < high:
        middle = high - 1 if high == len(tokens) else (low + high) // 2
        if occurs(middle):
            low = middle + 1
        else:
            high = middle
    return low


def _too_large(n_tokens: int, supported: int) -> ConfigError:
    return ConfigError(
        f"the corpus supports {supported} tokens besides the special ones, but {n_tokens} were asked for",
        hint=f"lower tokenizer.vocab_size (and pretrain.model.vocab_size) by at least {n_tokens - supported},"
        " or read more text",
    )
