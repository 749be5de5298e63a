"""The text of a parquet file: checked, counted, and written again where its column is not of strings.

Every downloaded shard passes through here, so that whoever reads `text.parquet` finds a column `text` of
strings in UTF-8. A file that has one already stays as it is, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nanochat.errors import DataError

logger = logging.getLogger(__name__)
_COLUMN = "text"
_SCHEMA = pa.schema({_COLUMN: pa.large_string()})
_WARN_FROM = 0.05  # share of the rows that hold no text


@dataclass
class TextCounts:
    """What a text shard holds; null and empty rows are documents too, without text."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    null: int = 0
    empty: int = 0

    def add(self, texts: Any) -> None:
        """Count an array of strings."""
        lengths = pc.binary_length(texts)
        self.documents += len(texts)
        self.characters += pc.sum(pc.utf8_length(texts)).as_py() or 0
        self.bytes += pc.sum(lengths).as_py() or 0
        self.null += texts.null_count
        self.empty += pc.sum(pc.equal(lengths, 0)).as_py() or 0

    def of_all(self) -> dict[str, int]:
        """Return what the tokens of the text must add up to."""
        return {"documents": self.documents, "characters": self.characters, "bytes": self.bytes}

    def of_empty(self) -> dict[str, int]:
        """Return how many rows hold no text, by kind."""
        return {"null_documents": self.null, "empty_documents": self.empty}


def take_text(path: Path, source: str) -> TextCounts:
    """Count the text of a parquet file and see that its column is of strings; `source` names it in errors.

    Raises DataError if it is not a parquet file, has no column `text` that can be strings, or no text in it.
    """
    counts, rewritten = TextCounts(), path.with_name(f".{path.name}.strings")
    with _opened(path, source) as file:
        kind = _type_of_text(file.schema_arrow, source)
        plain = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        with nullcontext() if plain else pq.ParquetWriter(rewritten, _SCHEMA, compression="zstd") as writer:
            for texts in _batches(file, source):
                counts.add(texts)
                if writer:
                    writer.write_table(pa.table({_COLUMN: texts}, _SCHEMA))
    if not plain:
        rewritten.replace(path)
    without = f"{counts.null} null and {counts.empty} empty"
    if not counts.bytes:
        raise DataError(
            f"{source}: no text in {counts.documents} documents ({without})",
            hint="take the file out of the source",
        )
    if counts.null + counts.empty > _WARN_FROM * counts.documents:
        logger.warning("%s: %s rows of %d hold no text", source, without, counts.documents)
    return counts


def _opened(path: Path, source: str) -> Any:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as raw:
            start = raw.read(24)
        what = "cut short or damaged" if start.startswith(b"PAR1") else f"starts with {start!r}"
        raise DataError(
            f"{source}: not a readable parquet file ({what})",
            hint="check that the address leads to the file itself, not to a page about it",
        ) from error


def _type_of_text(schema: Any, source: str) -> Any:
    """Return the type of the column; raise DataError where there is not one that can hold text."""
    found = schema.get_all_field_indices(_COLUMN)
    if len(found) != 1:
        raise DataError(
            f"{source}: {'no' if not found else len(found)} column{'s' * (len(found) > 1)} '{_COLUMN}';"
            f" its columns are {', '.join(schema.names)}",
            hint=f"rename the column that holds the documents to '{_COLUMN}'",
        )
    kind = schema.field(found[0]).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_text(value) for is_text in _TEXT):
        raise DataError(f"{source}: column '{_COLUMN}' holds {kind}, not strings")
    return kind


_TEXT = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)


def _batches(file: Any, source: str) -> Iterator[Any]:
    """Yield the texts as arrays of strings; raise DataError naming the row group where one is damaged."""
    for group in range(file.num_row_groups):
        where = f"{source}: row group {group}, column '{_COLUMN}'"
        first = 0
        try:
            for batch in file.iter_batches(row_groups=[group], columns=[_COLUMN]):
                yield _as_strings(batch.column(0), where, first)
                first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{where}: not readable, cut short or damaged: {error}",
                hint="compare the file with the one that it was copied from",
            ) from error


def _as_strings(column: Any, where: str, first: int) -> Any:
    """Return an array of strings; raise DataError naming the row that is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    raw = column.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        row = next(i for i, value in enumerate(raw) if value.is_valid and not _is_utf8(value.as_py()))
    raise DataError(
        f"{where}: row {first + row} of the group is not UTF-8: it begins with {raw[row].as_py()[:16]!r}",
        hint="write the text as UTF-8; bytes in another encoding must be decoded with that one first",
    )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
