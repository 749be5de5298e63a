"""The CORE bundle on disk: which tasks there are, their items and baselines, and how items become prompts.

`core/core.yaml` lists the tasks, `core/eval_meta_data.csv` their baselines, `core/eval_data/` the items.
Items are read and checked by `nanochat.evals.core.items`, scored by `nanochat.evals.core.score`.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nanochat.config.names import checked_name, checked_place
from nanochat.data.chat.messages import shown
from nanochat.data.chat.task_files import CORE, CORE_BASELINES, CORE_ITEMS, CORE_LIST
from nanochat.errors import DataError
from nanochat.evals.core.items import FIELDS, Item, Kind, read_items

SHUFFLE_SEED = 1337
SHOTS_SEED = 1234


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """One task of the bundle with the items that are asked."""

    label: str
    kind: Kind
    delimiter: str  # between context and continuation
    shots: int
    baseline: float  # accuracy of guessing, 0 to 1
    items: Sequence[Item]  # shuffled
    of: int | None = None  # items that the bundle has, where that is known
    numbers: Sequence[int] = ()  # of the items in their file; empty: as they stand here

    def number(self, index: int) -> int:
        """Return an item's number in its file."""
        return self.numbers[index] if self.numbers else index

    def index(self, number: int) -> int:
        """Return where the item with this number in its file stands here."""
        return self.numbers.index(number) if self.numbers else range(len(self.items)).index(number)

    def examples(self, index: int) -> list[Item]:
        """Draw the solved examples shown before an item: the same each time, never the item itself."""
        others = len(self.items) - 1
        drawn = random.Random(SHOTS_SEED + index).sample(range(others), min(self.shots, others))
        return [self.items[i if i < index else i + 1] for i in drawn]

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
    tasks = [_load_task(folder, entry, baselines, max_items) for entry in _read_list(listing)]
    labels = [task.label for task in tasks]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise DataError(f"{listing} has two tasks labelled {twice}")
    return tasks


def _read_list(listing: Path) -> list[Any]:
    try:
        loaded = yaml.safe_load(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{listing}: cannot be read: {' '.join(str(error).split())}") from error
    entries = loaded.get("icl_tasks") if isinstance(loaded, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{listing} has no icl_tasks")
    return entries


def _load_task(
    folder: Path, entry: Mapping[str, Any], baselines: Mapping[str, float], max_items: int | None
) -> CoreTask:
    try:
        label, kind = checked_name(str(entry["label"])), entry["icl_task_type"]
        file = folder / CORE_ITEMS / checked_place(entry["dataset_uri"])
        shots = int(entry["num_fewshot"][0])
        delimiter = entry.get("continuation_delimiter", " ")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / CORE_LIST}: task {shown(entry)} lacks or garbles {error}") from error
    if not isinstance(kind, str) or kind not in FIELDS:
        raise DataError(f"CORE task {label} is of type {shown(kind)}; known types are {', '.join(FIELDS)}")
    if shots < 0 or not isinstance(delimiter, str):
        wrong = f"num_fewshot is {shots}" if shots < 0 else f"continuation_delimiter is {shown(delimiter)}"
        raise DataError(f"{folder / CORE_LIST}: task {label}: {wrong}")
    if label not in baselines:
        raise DataError(f"CORE task {label} has no baseline in {folder / CORE_BASELINES}")
    if not file.is_file():
        raise DataError(f"{file} does not exist, but {CORE_LIST} lists it")
    numbered = list(enumerate(read_items(file, kind)))
    random.Random(SHUFFLE_SEED).shuffle(numbered)
    asked = numbered[:max_items]
    return CoreTask(
        label=label,
        kind=kind,
        delimiter=delimiter,
        shots=shots,
        baseline=baselines[label],
        items=[item for _, item in asked],
        numbers=[number for number, _ in asked],
        of=len(numbered),
    )


def _read_baselines(file: Path) -> dict[str, float]:
    """Return the accuracy of guessing of each task, from 0 to below 1."""
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    found: dict[str, float] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        try:
            for row in table:
                label, percent = row["Eval Task"], float(row["Random baseline"])
                if label in found or not 0 <= percent < 100:
                    wrong = "is there twice" if label in found else f"has a baseline of {percent} %"
                    raise DataError(f"{file}, line {table.line_num}: task {label} {wrong}")
                found[label] = percent / 100
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise DataError(f"{file}: no column or number of baselines: {error}") from error
    return found
