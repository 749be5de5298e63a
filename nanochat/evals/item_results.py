"""What a model made of one item of a benchmark: the unit in which results are kept, counted and compared.

Plain data; how items are asked and judged is the business of `choice`, `generative` and `core.score`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ItemResult:
    """One item: what was asked, what the model said, and whether that is right.

    Written answers have one prediction, verdict and reply per sample; choices have one prediction and
    verdict, and a log-likelihood per option.
    """

    item: int  # number of the row in the task, before any shuffle
    prompt_sha256: str  # of the tokens that were asked
    gold: str  # letter, number of the option, number, or empty where tests decide
    predictions: tuple[str, ...]
    right: tuple[bool, ...]
    loglikelihoods: tuple[float, ...] = ()
    replies: tuple[str, ...] = ()
    group: str = ""  # part of the task, such as a subject


def prompt_digest(rows: Iterable[Sequence[int]]) -> str:
    """Return the sha256 of the token rows that ask an item."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "little"))
        digest.update(array("q", row).tobytes())
    return digest.hexdigest()
