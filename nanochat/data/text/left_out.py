"""Documents of a text shard that do not become tokens: their list as a file, and leaving them out, counted.

Why a document is left out is up to whoever writes the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nanochat.errors import DataError
from nanochat.tokenizer.split import characters

_FILE = "documents.npy"


def write_left_out(folder: Path, documents: npt.NDArray[np.int64]) -> None:
    """Write the numbers of documents of a shard, in order."""
    np.save(folder / _FILE, documents, allow_pickle=False)


def read_left_out(folder: Path) -> frozenset[int]:
    """Return the numbers that were written; raise DataError if there are none to read."""
    path = folder / _FILE
    try:
        return frozenset(np.load(path, allow_pickle=False).tolist())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} does not hold numbers of documents: {error}",
            hint="make it again: --force contamination",
        ) from error


@dataclass
class LeftOut:
    """Leaves documents out of a stream of texts, and counts them."""

    numbers: frozenset[int]
    counts: dict[str, int] = field(
        default_factory=lambda: {"documents": 0, "characters": 0, "bytes": 0}, init=False
    )

    def rest_of(self, batches: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        """Yield the texts that stay; raise DataError at the end if a number did not belong to a document."""
        first = 0
        for texts in batches:
            here = [first + i in self.numbers for i in range(len(texts))]
            for text, out in zip(texts, here, strict=True):
                if out:
                    self._count(text)
            first += len(texts)
            yield [text for text, out in zip(texts, here, strict=True) if not out]
        if self.counts["documents"] != len(self.numbers):
            raise DataError(
                f"{len(self.numbers)} documents are to be left out, but {self.counts['documents']} of them"
                f" are among the {first} of the shard",
                hint="the list was made for another text",
            )

    def _count(self, text: bytes) -> None:
        self.counts["documents"] += 1
        self.counts["characters"] += characters(text)
        self.counts["bytes"] += len(text)
