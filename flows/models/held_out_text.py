"""Text that a model was not trained on, in rows of its own tokens.

A file that is given, else the validation text of the model's own training, else a short English text that
comes with the code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.stages import IMPORT, PRETRAIN
from flows.store import Record, Store
from flows.store.lineage import lineage
from nanochat.data.text.token_shards import TokenShard, vocabulary_digest
from nanochat.errors import DataError
from nanochat.evals.weight_cost import plain_text, rows_of
from nanochat.tokenizer.tokenizer import Tokenizer

BUILT_IN = "a built-in English text"
_MOST_CHARACTERS = 1_000_000  # of a file


@dataclass(frozen=True)
class HeldOut:
    """Rows of tokens, each predicted from those before it, and where they are from."""

    source: str
    rows: Sequence[Sequence[int]]
    size: int  # bytes of what is predicted

    @property
    def tokens(self) -> int:
        """Return how many tokens are predicted."""
        return sum(len(row) - 1 for row in self.rows)


def held_out(
    store: Store, record: Record | None, file: Path | None, tokenizer: Tokenizer, *, length: int, tokens: int
) -> HeldOut:
    """Return about `tokens` tokens of text for a model, of which the store may have a record.

    Raises DataError for a file that is missing, empty or not text, StoreError if the validation text is
    damaged.
    """
    with _documents(store, record, file, tokenizer) as (source, documents):
        rows = rows_of(documents, length, tokens)
    if not rows:
        raise DataError(f"{source} holds no text", hint="name a text file in UTF-8 with --text")
    sizes = tokenizer.token_bytes()
    return HeldOut(source, rows, sum(int(sizes[row[1:]].sum()) for row in rows))


@contextmanager
def _documents(
    store: Store, record: Record | None, file: Path | None, tokenizer: Tokenizer
) -> Iterator[tuple[str, Iterable[Any]]]:
    """Give the name of a text and its documents in tokens, while the block runs."""
    bos = tokenizer.special("bos")
    if file is not None:
        yield str(file), [[bos, *tokenizer.encode(_beginning(file))]]
        return
    validation = record and _validation(store, record)
    if not validation:
        yield BUILT_IN, [[bos, *tokenizer.encode(plain_text())]]
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = store.fetch(validation, Path(scratch))
        shard = TokenShard.open(folder, vocabulary_digest(tokenizer))
        yield f"the validation text of its training, {validation.stage}/{validation.key[:12]}", shard


def _beginning(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(_MOST_CHARACTERS)
    except FileNotFoundError:
        raise DataError(f"{file} is missing", hint="name a text file in UTF-8") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}") from error


def _validation(store: Store, record: Record) -> Record | None:
    """Return the validation tokens of the training that a model comes from; None where they are not kept."""
    if record.stage == IMPORT.name:
        return None
    made = next((r for r in (record, *lineage(store, record)) if r.stage == PRETRAIN.name), None)
    line = made.inputs.get("val_tokens") if made else None
    return store.find(line["stage"], line["key"]) if isinstance(line, dict) else None
