"""Scores models on the benchmarks again, with fewer or other problems; keeps nothing.

A model that was trained here is scored on the problems of its own recipe, any other (an imported one, a
published folder) on those of the newest evaluation in the store; a second model is asked what the first was.
Validation text is encoded by each model's own tokenizer.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.models.find import folder_of, input_of, trained
from flows.models.import_export import import_config
from flows.run.execute import run_function
from flows.stage import Stage
from flows.stages import EVALUATE_BASE, EVALUATE_SFT, EVALUATIONS, IMPORT, PRETRAIN, TOKENIZE, TRAINED
from flows.store import Record, Store
from flows.store.lineage import lineage
from flows.store.records import input_refs
from nanochat.config import EvaluateConfig, ImportConfig, TokenizeConfig
from nanochat.data.chat.task_files import CORE, CORE_LIST, task_file
from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import task_path
from nanochat.errors import ConfigError, StoreError
from nanochat.evals.item_files import read_items
from nanochat.evals.item_results import ItemResult
from nanochat.evals.kept_rows import ITEMS
from nanochat.formats.folder import find_published
from nanochat.formats.published import Choice
from nanochat.recipes.overrides import explain
from nanochat.runtime import NullTracker, Runtime, Tracker
from nanochat.tokenizer.tokenizer import Tokenizer

CORE_ASKED, BPB_ASKED = "core", "val_bpb"
_LOGGED = ("eval", "progress")  # how names begin that an evaluation logs while it runs


@dataclass(frozen=True)
class Examinee:
    """A model to score: a record of the store, or a published folder."""

    name: str  # as the user names it
    model: Record | ImportConfig


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What became of one model."""

    examinee: Examinee
    results: Mapping[str, Any]  # as results.json has them
    items: Mapping[str, Sequence[ItemResult]]  # by task; those of CORE begin with core_
    seconds: Mapping[str, float]  # by task likewise
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Questions:
    """What models are asked: problems and validation text, and how."""

    store: Store
    config: EvaluateConfig
    with_core: bool
    with_bpb: bool
    source: Record  # of the problems
    val_tokens: Record
    tasks: Path  # the problems
    scratch: Path

    def score(self, examinee: Examinee, runtime: Runtime | None = None) -> Scores:
        """Ask a model everything."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            inputs, out = self._inputs(examinee, Path(folder)), Path(folder) / "out"
            out.mkdir()
            runtime = runtime or Runtime()
            watch = _Stopwatch(runtime.tracker)
            stage = EVALUATE_BASE if self.with_core else EVALUATE_SFT
            run_function(stage.run)(self.config, inputs, out, replace(runtime, tracker=watch))
            return Scores(
                examinee=examinee,
                results=json.loads((out / "results.json").read_text(encoding="utf-8")),
                items=kept_items(out),
                seconds=watch.seconds,
                tokenizer=Tokenizer.load(inputs["tokenizer"]),
            )

    def _inputs(self, examinee: Examinee, scratch: Path) -> dict[str, Path]:
        model, words = _fetched(self.store, examinee.model, scratch)
        inputs = {"model": model, "tokenizer": words, "tasks": self.tasks}
        if self.with_bpb:
            inputs["val_tokens"] = self._val_tokens(examinee.model, words, scratch)
        return inputs

    def _val_tokens(self, model: Record | ImportConfig, words: Path, scratch: Path) -> Path:
        """Return the validation text in tokens of the model's own tokenizer."""
        out, shard = scratch / BPB_ASKED, scratch / "shard"
        encoded_by = self.val_tokens.inputs["tokenizer"]
        if isinstance(model, Record) and model.inputs.get("tokenizer") == encoded_by:
            return self.store.fetch(self.val_tokens, out)
        self.store.fetch(input_of(self.store, self.val_tokens, "shard"), shard)
        out.mkdir()
        run_function(TOKENIZE.run)(TokenizeConfig(), {"shard": shard, "tokenizer": words}, out, Runtime())
        return out


@dataclass
class _Stopwatch(NullTracker):
    """Measures how long each task takes, from one report of progress to the next, and passes those on."""

    shown: Tracker
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Count the time since the last report for what is reported now."""
        self.shown.log(metrics, step=step, total_steps=total_steps)
        now = time.monotonic()
        for name in metrics:
            group, _, task = name.partition("/")
            if group in _LOGGED:
                self.seconds[task] = self.seconds.get(task, 0.0) + now - self._last
        self._last = now


def scored_names() -> list[str]:
    """Return what a model can be asked."""
    return [*(name for name, task in TASKS.items() if task.has_answers), CORE_ASKED, BPB_ASKED]


def kept_items(folder: Path) -> dict[str, list[ItemResult]]:
    """Return the items in the artifact of an evaluation, by task."""
    return {path.stem: read_items(path) for path in sorted((folder / ITEMS).glob("*.parquet"))}


def find_examinee(store: Store, ref: str, choice: Choice | None = None) -> Examinee:
    """Return the model that a reference names; raises as `flows.models.find.open_model` does."""
    folder = folder_of(ref)
    if folder is None:
        if choice not in (None, Choice()):
            raise ConfigError(
                f"{ref} names one checkpoint of the store, so there is nothing to choose",
                hint="--source, --tag and --step are for published folders",
            )
        return Examinee(ref, trained(store, store.resolve(ref)))
    return Examinee(ref, import_config(find_published(folder, choice), folder))


def beside(first: Examinee, second: Examinee) -> Examinee:
    """Return the second model under a name that the first does not have: a folder can hold several models."""
    return replace(second, name=f"{second.name} (2)") if second.name == first.name else second


@contextmanager
def questions(
    store: Store,
    examinee: Examinee,
    *,
    tasks: Sequence[str] = (),
    limit: int | None = None,
    allow_unsafe_code: bool = False,
) -> Iterator[Questions]:
    """Give what a model is asked, while the block runs: `tasks`, or what its evaluation asks.

    The settings are those of the evaluation that the data is taken from, or the defaults; what this machine
    allows is said anew.
    """
    _require_known(tasks)
    evaluation, data, val_tokens = _data_for(store, examinee)
    config = _changed(EvaluateConfig(), settings_of(evaluation) if evaluation else {})
    is_base = evaluating(examinee.model) is EVALUATE_BASE
    change: dict[str, Any] = {"prompts": (), "allow_unsafe_code": allow_unsafe_code}
    if limit:
        change |= {"max_problems": limit, "core_max_problems": limit}
    if tasks:
        change |= {"chat_tasks": tuple(t for t in tasks if t in TASKS), "core": CORE_ASKED in tasks}
    config = _changed(config, change)
    with tempfile.TemporaryDirectory() as scratch:
        folder = store.fetch(data, Path(scratch) / "tasks")
        _require_problems(folder, tasks, f"{data.stage}/{data.key[:12]}")
        yield Questions(
            store,
            config,
            with_core=config.core and (is_base or CORE_ASKED in tasks),
            with_bpb=not tasks or BPB_ASKED in tasks,
            source=data,
            val_tokens=val_tokens,
            tasks=folder,
            scratch=Path(scratch),
        )


def _require_known(tasks: Sequence[str]) -> None:
    known = scored_names()
    if unknown := [name for name in tasks if name not in known]:
        raise ConfigError(f"there is no task {unknown[0]!r}", hint=f"tasks: {', '.join(known)}")


def _require_problems(folder: Path, tasks: Sequence[str], source: str) -> None:
    """Raise ConfigError where the data has no problems of a task that is asked for."""
    there = [name for name in scored_names() if _has_problems(folder, name)]
    if missing := [name for name in tasks if name not in there]:
        raise ConfigError(f"{source} has no problems of {missing[0]}", hint=f"it has {', '.join(there)}")


def _has_problems(folder: Path, name: str) -> bool:
    if name == BPB_ASKED:
        return True
    if name == CORE_ASKED:
        return (folder / CORE / CORE_LIST).is_file()
    place = task_file(name, "test")
    return (folder / place).is_file() or task_path(folder, place) is not None


def _changed(config: EvaluateConfig, change: Mapping[str, Any]) -> EvaluateConfig:
    try:
        return EvaluateConfig.model_validate({**config.model_dump(), **change})
    except ValidationError as error:
        raise ConfigError(explain(error), hint="`nanochat show toy` lists the settings at evaluate") from None


def settings_of(record: Record) -> dict[str, Any]:
    """Return the configuration that a record was made with; raise StoreError where it has none."""
    config = record.payload.get("config")
    if not isinstance(config, dict):
        raise StoreError(f"{record.stage}/{record.key[:12]} does not say what it was made with")
    return config


def evaluating(model: Record | ImportConfig) -> Stage:
    """Return the stage that evaluates models such as this one."""
    if isinstance(model, ImportConfig):
        upstream: object = model.source
    else:
        trained_by = TRAINED.get(model.stage)
        upstream = trained_by.upstream if trained_by else settings_of(model).get("source")
    return EVALUATIONS.get(str(upstream), EVALUATE_SFT)  # models that no stage of ours trains are chat models


def _fetched(store: Store, model: Record | ImportConfig, scratch: Path) -> tuple[Path, Path]:
    """Return folders with the model and with its tokenizer."""
    folder = scratch / "model"
    if isinstance(model, ImportConfig):
        folder.mkdir()
        run_function(IMPORT.run)(model, {}, folder, Runtime())
        return folder, folder
    store.fetch(model, folder)
    if model.stage == IMPORT.name:
        return folder, folder
    return folder, store.fetch(input_of(store, model, "tokenizer"), scratch / "tokenizer")


def _data_for(store: Store, examinee: Examinee) -> tuple[Record | None, Record, Record]:
    """Return the evaluation whose settings hold, if there is one, its problems and its validation tokens."""
    model = examinee.model
    if isinstance(model, ImportConfig) or model.stage == IMPORT.name:
        return _newest(store, examinee)
    return _own(store, model)


def _own(store: Store, model: Record) -> tuple[Record | None, Record, Record]:
    """Return a model's own evaluation, if there was one, and the data that belongs to it."""
    ancestors = {r.stage: r for r in lineage(store, model)} | {model.stage: model}
    recorded = own_evaluation(store, model)
    val_tokens = input_of(store, ancestors[PRETRAIN.name], "val_tokens")
    return recorded, _tasks(store, recorded, ancestors), val_tokens


def own_evaluation(store: Store, model: Record) -> Record | None:
    """Return the newest evaluation of a model that the store has."""
    evaluations = store.catalog.newest(store.catalog.listed(evaluating(model).name))
    return next((r for r in evaluations if (model.stage, model.key) in input_refs(r)), None)


def _newest(store: Store, examinee: Examinee) -> tuple[Record, Record, Record]:
    """Return the newest evaluation in the store, and its data."""
    last_training_first = reversed(EVALUATIONS.values())
    listings = (store.catalog.listed(stage.name) for stage in last_training_first)
    found = next((r for listed in listings for r in store.catalog.newest(listed)), None)
    if found is None:
        raise StoreError(
            f"{store.url} has no evaluation yet, and so no problems for {examinee.name}",
            hint=f"run a recipe with --until {EVALUATE_BASE.name} first: its data is used",
        )
    return found, input_of(store, found, "tasks"), input_of(store, found, "val_tokens")


def _tasks(store: Store, recorded: Record | None, ancestors: Mapping[str, Record]) -> Record:
    if recorded:
        return input_of(store, recorded, "tasks")
    if "tasks" in ancestors:
        return ancestors["tasks"]
    raise StoreError(
        "this model has no chat and evaluation data yet",
        hint=f"run its recipe with --until {EVALUATE_BASE.name} first",
    )
