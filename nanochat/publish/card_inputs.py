"""What a model card is made from, and how texts from elsewhere are shown in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.config import ModelConfig, PublishConfig
from nanochat.evals.contamination.overlap import Overlap

Records = Mapping[str, Mapping[str, Any]]
"""Node id -> record of an ancestor, with its stage's title."""
# What Markdown, the hub's formulas and HTML read as more than text; `_` means nothing within a word.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_+|_+(?!\w)")
_BLOCK = re.compile(r"^(\d*)([-+=#.)])")  # at the beginning of a line: a list, a title, a rule


@dataclass(frozen=True)
class CardInputs:
    """All that a card says comes from here."""

    publish: PublishConfig
    model: ModelConfig
    parameters: int
    results: Mapping[str, Mapping[str, Any]]  # model -> results.json, the published model last
    overlap: Overlap  # of all training text with the evaluation tasks
    records: Records

    @property
    def final(self) -> Mapping[str, Any]:
        """Results of the model that is published."""
        return list(self.results.values())[-1]


def quoted(text: str) -> str:
    """Return a text from elsewhere as one line that Markdown shows as it is, in a table too."""
    escaped = _MARKUP.sub(lambda found: "".join(f"\\{each}" for each in found[0]), " ".join(text.split()))
    return _BLOCK.sub(r"\1\\\2", escaped)


def is_toy(records: Records) -> bool:
    """Return whether the benchmarks ask about the built-in world."""
    return bool(records.get("tasks", {}).get("payload", {}).get("config", {}).get("toy"))
