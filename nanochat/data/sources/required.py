"""Whether a source has the tasks that a recipe names: asked by a plan, before anything is fetched."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from nanochat.config import (
    Config,
    EvaluateConfig,
    MidtrainConfig,
    OverlapConfig,
    Recipe,
    SftConfig,
    TasksConfig,
)
from nanochat.data.chat.task_files import (
    CORE,
    CORE_LIST,
    SUFFIXES,
    TOY_CONVERSATIONS,
    is_own_task,
    task_file,
)
from nanochat.data.chat.task_table import TASKS, WORDS
from nanochat.data.sources.hub import IDENTITY, hub_paths, is_hub
from nanochat.errors import ConfigError

_CORE = f"{CORE}/{CORE_LIST}"
_WITH_ANSWERS = tuple(name for name, task in TASKS.items() if task.has_answers)
_JOINING_HINT = (
    "a folder needs this file, {form}; the hub takes it from the address in tasks.{field},"
    " as recipe d20-spelling does; the toy world has none"
)
_JOINING_HINTS = {
    WORDS: _JOINING_HINT.format(form="one word per line", field="words_url"),
    IDENTITY.removesuffix(SUFFIXES[0]): _JOINING_HINT.format(
        form="a list of messages per line", field="identity_url"
    ),
}


def require_tasks(source: TasksConfig, config: Config) -> None:
    """Raise ConfigError if a stage's configuration names a task that the resolved source does not have."""
    there = _files(source)
    for field, task, split in _wanted(config):
        asked = isinstance(config, EvaluateConfig | OverlapConfig)
        if asked and task not in _WITH_ANSWERS:
            message = f"{field} names {task!r}, which is not a task with answers to score"
            raise ConfigError(message, hint=_nearest(task, _WITH_ANSWERS))
        place = task_file(task, split)
        if place not in there:
            file = place if place == WORDS else f"{place}{SUFFIXES[0]}"
            lacks = f"tasks.source {source.source} has no {file}"
            if is_own_task(task):
                lacks = f"tasks.own has no {PurePosixPath(file).name}"
            message = f"{field} names {task!r}, but {lacks}"
            hint = _JOINING_HINTS.get(place) or _nearest(task, _names(there) - {task})
            raise ConfigError(message, hint=hint)


def require_core(source: TasksConfig) -> None:
    """Raise ConfigError if the resolved source has no CORE bundle."""
    if _CORE not in _files(source):
        raise ConfigError(
            f"evaluate.core is true, but tasks.source {source.source} has no {_CORE}",
            hint="add the CORE bundle, or use -o evaluate.core=false",
        )


def _wanted(config: Config) -> Iterator[tuple[str, str, str]]:
    if isinstance(config, MidtrainConfig | SftConfig):
        sections = Recipe.model_fields.items()
        section = next(name for name, field in sections if field.annotation is type(config))
        for field in ("mixture", "validation"):
            for entry in getattr(config, field):
                yield f"{section}.{field}", entry.task, entry.split
    elif isinstance(config, EvaluateConfig | OverlapConfig):
        for task in config.chat_tasks:
            yield "evaluate.chat_tasks", task, "test"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def _files(source: TasksConfig) -> set[str]:
    own = {place for file in source.files if is_own_task(place := _without_suffix(file.path))}
    if source.toy is not None:
        places = {split.place for task in TASKS.values() if task.toy for split in task.splits.values()}
        return places | {f"conversations/{name}" for name in TOY_CONVERSATIONS} | {_CORE} | own
    if is_hub(source.source):
        return {_without_suffix(path) for path in hub_paths(source)} | {_CORE} | own
    return {_without_suffix(file.path) for file in source.files}


def _names(there: set[str]) -> set[str]:
    tasks = {
        name for name, task in TASKS.items() if any(split.place in there for split in task.splits.values())
    }
    conversations = {PurePosixPath(place).name for place in there if place.startswith("conversations/")}
    return tasks | conversations | {place for place in there if is_own_task(place)}


def _without_suffix(path: str) -> str:
    return next((path.removesuffix(s) for s in SUFFIXES if path.endswith(s)), path)
