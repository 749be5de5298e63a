"""The CORE bundle on disk: which tasks there are, their items and baselines, and how items become prompts.

`core/core.yaml` lists the tasks, `core/eval_meta_data.csv` their baselines, `core/eval_data/` the items.
Scoring is the work of `nanochat.evals.core.score`.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from nanochat.config.names import checked_place
from nanochat.data.chat.task_files import CORE, CORE_BASELINES, CORE_ITEMS, CORE_LIST
from nanochat.errors import DataError

Kind = Literal["multiple_choice", "schema", "language_modeling"]
Item = Mapping[str, Any]

_FIELDS: dict[Kind, tuple[str, ...]] = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
_SHUFFLE_SEED = 1337
_SHOTS_SEED = 1234


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """One task of the bundle with the items that are asked."""

    label: str
    kind: Kind
    delimiter: str  # between context and continuation
    shots: int
    baseline: float  # accuracy of guessing, 0 to 1
    items: Sequence[Item]  # shuffled

    def examples(self, index: int) -> list[Item]:
        """Draw the solved examples shown before an item: the same each time, never the item itself."""
        others = [i for i in range(len(self.items)) if i != index]
        drawn = random.Random(_SHOTS_SEED + index).sample(others, min(self.shots, len(others)))
        return [self.items[i] for i in drawn]

    def prompts(self, index: int) -> list[str]:
        """Return the texts that are compared for an item: one per choice, or without and with the answer."""
        item = self.items[index]
        shown = "".join(f"{self._solved(example)}\n\n" for example in self.examples(index))
        if self.kind == "multiple_choice":
            return [f"{shown}{item['query']}{self.delimiter}{choice}" for choice in item["choices"]]
        if self.kind == "schema":
            end = f"{self.delimiter}{item['continuation']}"
            return [f"{shown}{context}{end}" for context in item["context_options"]]
        without = f"{shown}{item['context'].strip()}{self.delimiter}"
        return [without.strip(), f"{without}{item['continuation']}"]

    def _solved(self, item: Item) -> str:
        if self.kind == "multiple_choice":
            return f"{item['query']}{self.delimiter}{item['choices'][item['gold']]}"
        if self.kind == "schema":
            return f"{item['context_options'][item['gold']]}{self.delimiter}{item['continuation']}"
        return f"{item['context'].strip()}{self.delimiter}{item['continuation']}"


def load_core(root: Path, max_items: int | None) -> list[CoreTask]:
    """Read the tasks of `root/core`, at most `max_items` items of each after a fixed shuffle."""
    folder = root / CORE
    listing = folder / CORE_LIST
    if not listing.is_file():
        raise DataError(f"{listing} does not exist", hint="without the CORE bundle set evaluate.core=false")
    baselines = _read_baselines(folder / CORE_BASELINES)
    loaded = yaml.safe_load(listing.read_text(encoding="utf-8"))
    entries = loaded.get("icl_tasks") if isinstance(loaded, dict) else None
    if not entries:
        raise DataError(f"{listing} has no icl_tasks")
    return [_load_task(folder, entry, baselines, max_items) for entry in entries]


def _load_task(
    folder: Path, entry: Mapping[str, Any], baselines: Mapping[str, float], max_items: int | None
) -> CoreTask:
    try:
        label, kind = str(entry["label"]), entry["icl_task_type"]
        file = folder / CORE_ITEMS / checked_place(entry["dataset_uri"])
        shots = int(entry["num_fewshot"][0])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{folder / CORE_LIST}: task {entry!r} lacks or garbles {error}") from error
    if kind not in _FIELDS:
        raise DataError(f"CORE task {label} is of type {kind!r}; known types are {', '.join(_FIELDS)}")
    if label not in baselines:
        raise DataError(f"CORE task {label} has no baseline in {folder / CORE_BASELINES}")
    items = list(_read_items(file, _FIELDS[cast(Kind, kind)]))
    random.Random(_SHUFFLE_SEED).shuffle(items)
    return CoreTask(
        label=label,
        kind=cast(Kind, kind),
        delimiter=entry.get("continuation_delimiter", " "),
        shots=shots,
        baseline=baselines[label],
        items=items[:max_items],
    )


def _read_items(file: Path, fields: Sequence[str]) -> Iterator[Item]:
    if not file.is_file():
        raise DataError(f"{file} does not exist, but {CORE_LIST} lists it")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}, line {number}: {error}") from error
            if not isinstance(item, dict) or any(field not in item for field in fields):
                raise DataError(f"{file}, line {number}: an item needs {', '.join(fields)}")
            yield item


def _read_baselines(file: Path) -> dict[str, float]:
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            return {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(lines)}
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{file}: no column or number of baselines: {error}") from error
