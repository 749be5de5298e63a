"""The tokenizer: byte-level BPE with a split pattern and nine special tokens, and its own folder format.

A folder holds `tokenizer.model`, a SentencePiece model whose piece `i` is the byte-mapped token of rank `i`
(special tokens as control pieces after them, the unknown piece last and never produced), and
`tokenizer.json` with the split pattern, the special tokens and the training counts. Text is always encoded
as ordinary text: the text `<|bos|>` never becomes the special token. tiktoken encodes single texts and
what the lexicon meets for the first time. nanochat's pickle: `nanochat.formats.tokenizer_pickle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import tiktoken

from nanochat.errors import DataError
from nanochat.tokenizer.bpe_training import map_bytes, unmap_bytes
from nanochat.tokenizer.split import PATTERN, PROBE, check_pattern, isolate_long_runs, utf8

if TYPE_CHECKING:
    from nanochat.tokenizer.lexicon import Lexicon

SPECIAL_NAMES = (
    "bos",
    "user_start",
    "user_end",
    "assistant_start",
    "assistant_end",
    "python_start",
    "python_end",
    "output_start",
    "output_end",
)
"""The special tokens, in order of their ids, which follow the mergeable tokens."""
MODEL_FILE = "tokenizer.model"
META_FILE = "tokenizer.json"
_LONGEST_TOKEN = 4096  # bytes; training makes at most 512, and work on a token can grow with its square


class Tokenizer:
    """Turns text into token ids and back; immutable, and safe to share between threads."""

    def __init__(
        self, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], pattern: str = PATTERN
    ) -> None:
        self.ranks: dict[bytes, int] = dict(ranks)
        self.special_tokens: dict[str, int] = dict(special_tokens)
        self.pattern = pattern
        ids = sorted([*self.ranks.values(), *self.special_tokens.values()])
        if ids != list(range(len(ids))):
            raise DataError(f"the {len(ids)} token ids are not 0 to {len(ids) - 1}, each once")
        missing = [name for name in SPECIAL_NAMES if special_text(name) not in self.special_tokens]
        if missing:
            raise DataError(f"the tokenizer lacks the special tokens {missing}")
        _check_tokens(self.ranks)
        check_pattern(pattern)
        self._encoding = _encoding(self.ranks, self.special_tokens, pattern)
        self._lexicons: list[Lexicon] = []  # those that no thread is using

    @classmethod
    def from_ranks(cls, ranks: Mapping[bytes, int], pattern: str = PATTERN) -> Tokenizer:
        """Build a tokenizer whose special tokens follow the mergeable ones."""
        specials = {special_text(name): len(ranks) + i for i, name in enumerate(SPECIAL_NAMES)}
        return cls(ranks, specials, pattern)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return len(self.ranks) + len(self.special_tokens)

    def special(self, name: str) -> int:
        """Return the id of a special token, such as `bos` or `assistant_end`."""
        return self.special_tokens[special_text(name)]

    def encode(self, text: str) -> list[int]:
        """Encode text as ordinary tokens; raises `DataError` where it holds a lone surrogate."""
        utf8(text)
        ids: list[int] = []
        with _panics_as_errors(_fails_on(text)):
            for part in isolate_long_runs(text):
                if part.kind == "word":
                    ids += self._encoding._encode_single_piece(part.text)
                else:
                    ids += self._encoding.encode_ordinary(part.text)
        return ids

    def encode_batch(self, texts: Iterable[str | bytes]) -> list[npt.NDArray[np.uint32]]:
        """Encode many texts like `encode`, each into an array; fast from a few thousand words on.

        Bytes are taken for UTF-8: a long text takes up to four times its memory as a string.
        """
        if self.pattern != PATTERN:  # where it cuts is not known
            decoded = (text.decode() if isinstance(text, bytes) else text for text in texts)
            return [self._encode_array(text) for text in decoded]
        try:
            lexicon = self._lexicons.pop()
        except IndexError:
            from nanochat.tokenizer.lexicon import Lexicon  # brings pyarrow

            lexicon = Lexicon(self._encode_array, self.token_bytes())
        encoded = lexicon.encode_batch(texts)
        self._lexicons.append(lexicon)
        return encoded

    def _encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        with _panics_as_errors(_fails_on(text)):
            try:
                ids: npt.NDArray[np.uint32] = self._encoding.encode_to_numpy(text, disallowed_special=())
            except ValueError:  # a lone surrogate, or a run of blanks that its engine cannot split
                ids = np.array(self.encode(text), dtype=np.uint32)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids into text; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Decode ids into bytes; special tokens become their text forms."""
        try:
            raw: bytes = self._encoding.decode_bytes(ids)
        except (KeyError, OverflowError) as error:
            raise DataError(f"token id outside of the vocabulary of {self.vocab_size}: {error}") from error
        return raw

    def token_bytes(self) -> npt.NDArray[np.int32]:
        """Return the length of each token in bytes (vocab_size,), 0 for special tokens."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for token, rank in self.ranks.items():
            lengths[rank] = len(token)
        return lengths

    def save(self, folder: Path, training: Mapping[str, int] | None = None) -> None:
        """Write the two files; the same tokenizer gives the same bytes. `training` are counts to keep."""
        from sentencepiece import sentencepiece_model_pb2  # brings protobuf

        model = sentencepiece_model_pb2.ModelProto()
        for token, rank in sorted(self.ranks.items(), key=lambda item: item[1]):
            model.pieces.add(piece=map_bytes(token), score=-rank, type=model.SentencePiece.NORMAL)
        for text, _ in sorted(self.special_tokens.items(), key=lambda item: item[1]):
            model.pieces.add(piece=text, score=0.0, type=model.SentencePiece.CONTROL)
        model.pieces.add(piece="<unk>", score=0.0, type=model.SentencePiece.UNKNOWN)
        trainer = model.trainer_spec
        trainer.model_type = trainer.BPE
        trainer.vocab_size = len(model.pieces)
        trainer.unk_id = len(model.pieces) - 1
        trainer.bos_id = trainer.eos_id = trainer.pad_id = -1
        normalizer = model.normalizer_spec
        normalizer.name = "identity"
        normalizer.add_dummy_prefix = False
        normalizer.remove_extra_whitespaces = False
        (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
        meta = {
            "format": 1,
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "vocab_size": self.vocab_size,
            "training": dict(training or {}),
        }
        (folder / META_FILE).write_text(
            json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read a folder that `save` wrote; raises `DataError` where it is not one."""
        from sentencepiece import SentencePieceProcessor

        model_file, meta_file = folder / MODEL_FILE, folder / META_FILE
        for file in (model_file, meta_file):
            if not file.is_file():
                raise DataError(f"{file} does not exist, so {folder} holds no tokenizer")
        try:
            meta = json.loads(meta_file.read_text(encoding="utf-8"))
            model = SentencePieceProcessor(model_proto=model_file.read_bytes())
            specials = {str(text): int(i) for text, i in meta["special_tokens"].items()}
            n_ranks = int(meta["vocab_size"]) - len(specials)
            ranks = {unmap_bytes(model.id_to_piece(i)): i for i in range(n_ranks)}
            return cls(ranks, specials, meta["pattern"])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise DataError(f"{folder} holds a damaged tokenizer: {error}") from error


def _check_tokens(ranks: Mapping[bytes, int]) -> None:
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise DataError(
            f"the tokenizer lacks {len(missing)} of the 256 single bytes, such as 0x{missing[0]:02x}",
            hint="a byte-level tokenizer is needed, which can encode any text",
        )
    longest = max(ranks, key=len)
    if len(longest) > _LONGEST_TOKEN:
        raise DataError(
            f"token {ranks[longest]} has {len(longest):,} bytes; at most {_LONGEST_TOKEN:,} are read",
            hint="training finds tokens of a few hundred bytes: the file is damaged or hostile",
        )


def _encoding(ranks: dict[bytes, int], specials: dict[str, int], pattern: str) -> tiktoken.Encoding:
    """Return tiktoken's encoder; raise DataError where it cannot be built or loses text."""
    with _panics_as_errors("the tables or the split pattern cannot be used"):
        encoding = tiktoken.Encoding(
            "nanochat", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials
        )
        kept = pattern == PATTERN or encoding.decode(encoding.encode_ordinary(PROBE)) == PROBE
    if not kept:
        raise DataError(
            f"the split pattern loses text between its words: {pattern[:60]!r}",
            hint="a split pattern must match every character, as nanochat's and those of GPT-2 and GPT-4 do",
        )
    return encoding


def _fails_on(text: str) -> str:
    return f"the split pattern fails on a text of {len(text):,} characters"


@contextmanager
def _panics_as_errors(what: str) -> Iterator[None]:
    """Raise DataError for what tiktoken raises: a panic of its engine is not even an Exception."""
    try:
        yield
    except (DataError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise DataError(f"{what}: {type(error).__name__}: {str(error)[:200]}") from error


def special_text(name: str) -> str:
    """Return the text form of a special token: `bos` -> `<|bos|>`."""
    return f"<|{name}|>"
