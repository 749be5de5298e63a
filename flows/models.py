"""From a reference to a model that talks or is scored: finds model and tokenizer through the lineage.

`publish` and the trained stages (`pretrain`, `midtrain`, `sft`) can be named; what such a record was made
from says which tokenizer, tasks and validation tokens belong to it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.execute import run_function
from flows.lineage import lineage
from flows.stage import Record
from flows.stages import STAGES
from flows.store import Store
from nanochat.config import EvaluateConfig
from nanochat.errors import StoreError
from nanochat.runtime import Runtime

if TYPE_CHECKING:
    from nanochat.chat.engine import Engine

_EVALUATED_BY = {"pretrain": "evaluate_base", "midtrain": "evaluate_mid", "sft": "evaluate_sft"}


def open_engine(store: Store, ref: str) -> Engine:
    """Return an engine for the model that a reference names: a record, or a published folder.

    Raises StoreError if the record holds no model or its parts are gone, DataError for a bad folder.
    """
    from nanochat.chat.engine import Engine
    from nanochat.model.checkpoint import load_model
    from nanochat.publish.nanochat_format import read_nanochat_folder
    from nanochat.tokenizer.tokenizer import Tokenizer

    if Path(ref).is_dir():
        return Engine(*read_nanochat_folder(Path(ref)))
    trained = _trained(store, store.resolve(ref))
    tokenizer = _input(store, trained, "tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(store.fetch(trained, Path(folder) / "model"))
        return Engine(model, Tokenizer.load(store.fetch(tokenizer, Path(folder) / "tokenizer")))


def evaluate_model(
    store: Store, record: Record, *, max_problems: int | None = None, tasks: Sequence[str] = ()
) -> dict[str, Any]:
    """Score the model that a record names on the tasks it was trained with; keep nothing in the store.

    The settings are those of the model's own evaluation in the store, or the defaults.
    """
    trained = _trained(store, record)
    stage = STAGES[_EVALUATED_BY[trained.stage]]
    ancestors = {r.stage: r for r in lineage(store, trained)} | {trained.stage: trained}
    recorded = [r for r in store.records(stage.name) if r.inputs["model"]["key"] == trained.key]
    config = EvaluateConfig(**recorded[0].payload["config"]) if recorded else EvaluateConfig()
    change: dict[str, Any] = {"max_problems": max_problems or config.max_problems}
    if tasks:
        change |= {"chat_tasks": tuple(tasks), "core": False}
    parts = {
        "model": trained,
        "tokenizer": _input(store, trained, "tokenizer"),
        "tasks": _tasks(store, recorded, ancestors),
        "val_tokens": _input(store, ancestors["pretrain"], "val_tokens"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {name: store.fetch(part, Path(scratch) / name) for name, part in parts.items()}
        out = Path(scratch) / "out"
        out.mkdir()
        run_function(stage.run)(config.model_copy(update=change), inputs, out, Runtime())
        return dict(json.loads((out / "results.json").read_text(encoding="utf-8")))


def _trained(store: Store, record: Record) -> Record:
    if record.stage in _EVALUATED_BY:
        return record
    if "model" in record.inputs:
        return _input(store, record, "model")
    raise StoreError(
        f"{record.stage}/{record.key[:12]} holds no model",
        hint=f"name one of {', '.join(_EVALUATED_BY)}, publish",
    )


def _tasks(store: Store, recorded: Sequence[Record], ancestors: Mapping[str, Record]) -> Record:
    if recorded:
        return _input(store, recorded[0], "tasks")
    if "tasks" in ancestors:
        return ancestors["tasks"]
    raise StoreError(
        "no chat and evaluation data belongs to this model yet",
        hint="run its recipe with --until evaluate_base first",
    )


def _input(store: Store, record: Record, name: str) -> Record:
    line = record.inputs[name]
    found = store.find(line["stage"], line["key"])
    if found is None:
        raise StoreError(
            f"{record.stage}/{record.key[:12]} needs {line['stage']}/{line['key'][:12]}, which is gone",
            hint="run its recipe again: what is missing is made anew",
        )
    return found
