"""Mixtures: the conversations of several tasks in one fixed shuffled order, and which of them validate.

A user's own conversations (`tasks.own`) join what trains, each once. They validate only where a validation
set names them, and then do not train. How a file is read is decided by `nanochat.data.chat.tasks`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from nanochat.config import ChatDataConfig, MixtureEntry, held_out_rows
from nanochat.data.chat.task_files import HELD_OUT, OWN, is_own_task
from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import ChatTask, conversation_names, load_task, task_path
from nanochat.errors import DataError

if TYPE_CHECKING:
    from nanochat.tokenizer.chat_format import Conversation


class Place(NamedTuple):
    """A row of a task."""

    task: str
    split: str
    row: int


class Mixture(Sequence["Conversation"]):
    """Conversations of several tasks in one fixed order, built when asked for."""

    def __init__(self, loaded: _Loaded, places: Sequence[Place]) -> None:
        self._loaded, self.places = loaded, places

    def __len__(self) -> int:
        """Return the number of conversations in an epoch."""
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Mixture: ...
    def __getitem__(self, index: int | slice) -> Conversation | Mixture:
        """Return one conversation, or a part of the mixture."""
        if isinstance(index, slice):
            return Mixture(self._loaded, self.places[index])
        task, split, row = self.places[index]
        return self._loaded.task(task, split).conversation(row)


class _Loaded:
    """The tasks of a data root, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tasks: dict[tuple[str, str], ChatTask] = {}

    def task(self, name: str, split: str) -> ChatTask:
        if (name, split) not in self._tasks:
            self._tasks[name, split] = load_task(self._root, name, split)
        return self._tasks[name, split]

    def places(self, entry: MixtureEntry, seed: int, without: frozenset[Place] = frozenset()) -> list[Place]:
        """Return the rows that an entry takes, as often as it repeats them."""
        rows = range(len(self.task(entry.task, entry.split)))
        order = np.random.default_rng(seed).permutation(len(rows)).tolist() if entry.shuffle else rows
        there = (Place(entry.task, entry.split, row) for row in order)
        return [place for place in there if place not in without][: entry.rows] * entry.repeat


def mixture(root: Path, entries: Sequence[MixtureEntry], seed: int) -> Mixture:
    """Load and shuffle a mixture; the same files, entries and seed give the same order.

    The order is upstream's for its seed of 42: data sets are shuffled where entries say so, then all rows.
    Without entries it is every row below `root` that is for training, once; the spelling tasks, which could
    outnumber them all, are left out unless named.
    """
    loaded = _Loaded(root)
    taken = (loaded.places(entry, seed) for entry in entries or _everything(root))
    return Mixture(loaded, _shuffled(taken, seed))


def chat_data(root: Path, config: ChatDataConfig) -> tuple[Mixture, Mixture]:
    """Load those that train, and those that validate: a mixture of their own, or the training one's end.

    The end is that of the mixture without the user's own rows, so these are never held out, and what
    validates is the same with and without them.
    """
    seed, loaded = config.seed, _Loaded(root)
    validation = _shuffled((loaded.places(entry, seed) for entry in config.validation), seed)
    entries = config.mixture or _everything(root)
    training = _shuffled((loaded.places(e, seed) for e in entries if not is_own_task(e.task)), seed)
    if not config.validation:
        training, validation = _held_out(training)
    asked = frozenset(place for place in validation if is_own_task(place.task))
    own = [place for e in _own_entries(root, entries) for place in loaded.places(e, seed, asked)]
    if own:
        training = _shuffled([training, own], seed)
    if not training:
        raise DataError(
            "no conversation is left to train on",
            hint="name fewer rows of your own for validation, or more data sets in the stage's mixture",
        )
    return Mixture(loaded, training), Mixture(loaded, validation)


def _own_entries(root: Path, entries: Sequence[MixtureEntry]) -> Iterator[MixtureEntry]:
    """Yield the user's own files as the mixture names them, and those that it does not name, whole."""
    named = [entry for entry in entries if is_own_task(entry.task)]
    yield from named
    for path in sorted((root / OWN).glob("*")):
        task = f"{OWN}/{path.stem}"
        if all(entry.task != task for entry in named):
            yield MixtureEntry(task=task)


def _shuffled(parts: Iterator[list[Place]] | Sequence[list[Place]], seed: int) -> list[Place]:
    order = [place for part in parts for place in part]
    random.Random(seed).shuffle(order)
    return order


def _held_out(places: list[Place]) -> tuple[list[Place], list[Place]]:
    """Split a shuffled mixture: its end (`held_out_rows`) validates, the rest trains.

    Rows that a mixture repeats may be on both sides.
    """
    if not places:
        raise DataError(
            "the mixture has only your own conversations, which are not held out to validate on",
            hint="name what validates, such as validation=[{task: test}], or more data sets in the mixture",
        )
    count = held_out_rows(len(places))
    return places[:-count], places[-count:]


def _everything(root: Path) -> list[MixtureEntry]:
    found = [
        name
        for name, task in TASKS.items()
        if "train" in task.splits and not task.from_words and task_path(root, task.splits["train"].place)
    ]
    found += [name for name in conversation_names(root) if name != HELD_OUT]
    if not found:
        raise DataError(
            f"{root}: no training data below tasks/ or conversations/", hint="is tasks.source right?"
        )
    return [MixtureEntry(task=name) for name in found]
