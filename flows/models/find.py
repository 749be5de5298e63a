"""From a reference to a model: finds model and tokenizer through the lineage, or in a published folder.

`publish`, `import` and the trained stages (`pretrain`, `midtrain`, `sft`) can be named; the lineage of such a
record says which tokenizer, tasks and validation tokens belong to it. What is then done with the model (chat,
scores, another format) is decided elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.stages import IMPORT, PUBLISH, STAGES, TRAINED
from flows.store import Record, Store
from flows.store.blobs import remade_by
from nanochat.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from nanochat.chat.engine import Engine
    from nanochat.formats.published import Choice, Published

_RESULTS = {"val/bpb": "val_bpb", "val/loss": "val_loss"}


def open_engine(
    store: Store, ref: str, choice: Choice | None = None, device: str = "cpu", weights: str = "float32"
) -> Engine:
    """Return an engine for the model that a reference names: a record, or a published folder.

    `weights` is `auto` or a kind of `nanochat.model.inference_weights`. Raises as `open_model` does, and
    ConfigError for a device that this machine lacks, or weights that the device cannot compute with.
    """
    published = open_model(store, ref, choice)
    from nanochat.chat.engine import Engine  # heavy, and not needed to report a wrong reference
    from nanochat.model.device import device_of
    from nanochat.model.inference_weights import use_weights

    model = published.model.to(device_of(device))
    use_weights(model, weights)
    return Engine(model, published.tokenizer)


def open_model(store: Store, ref: str, choice: Choice | None = None) -> Published:
    """Return the model that a reference names, in float32, with its tokenizer.

    Raises:
        ConfigError: a folder that does not exist, or a choice where there is nothing to choose.
        StoreError: the record holds no model, or its parts are gone.
        DataError: the folder is damaged, hostile or of another format.
    """
    folder = folder_of(ref)
    from nanochat.formats.folder import find_published, read_published
    from nanochat.formats.published import Choice

    if folder:
        return read_published(find_published(folder, choice))
    if choice not in (None, Choice()):
        raise ConfigError(
            f"{ref} names one checkpoint of the store, so there is nothing to choose",
            hint="--source, --tag and --step are for published folders",
        )
    return open_record(store, store.resolve(ref))


def open_record(store: Store, record: Record) -> Published:
    """Return the model of a record; raises as `open_model` does."""
    from nanochat.formats.folder import find_published, read_published
    from nanochat.formats.published import Published
    from nanochat.formats.transformers_folder import NOTE, read_note
    from nanochat.model.checkpoint import load_model
    from nanochat.tokenizer.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        if record.stage == PUBLISH.name:
            return read_published(find_published(store.fetch(record, Path(scratch))))
        model_record = trained(store, record)
        folder = store.fetch(model_record, Path(scratch) / "model")
        if model_record.stage == IMPORT.name:
            model, tokenizer = load_model(folder, mapped=True), Tokenizer.load(folder)
            return Published(model=model, tokenizer=tokenizer, **read_note(folder / NOTE))
        words = store.fetch(input_of(store, model_record, "tokenizer"), Path(scratch) / "tokenizer")
        return Published(
            model=load_model(folder, mapped=True),
            tokenizer=Tokenizer.load(words),
            step=_steps(model_record.metrics),
            source=TRAINED[model_record.stage].upstream,
            results=_results(model_record.metrics),
        )


def folder_of(ref: str) -> Path | None:
    """Return the folder that a reference names, or None where it names a record.

    A stage's name is never taken for a folder in the working directory; `./sft` is.

    Raises ConfigError for what looks like a path but is not a folder.
    """
    if ref.partition("/")[0] in (*STAGES, IMPORT.name):
        return None
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or ref.startswith((".", "~")) or os.sep in ref:
        raise ConfigError(
            f"{ref} is not a folder, and no stage has that name",
            hint=f"name a published folder, or one of {_with_models()}",
        )
    return None


def trained(store: Store, record: Record) -> Record:
    """Return the record whose artifact is the model of `record`; raise StoreError if it has none."""
    if record.stage in TRAINED or record.stage == IMPORT.name:
        return record
    if "model" in record.inputs:
        return input_of(store, record, "model")
    raise StoreError(f"{record.stage}/{record.key[:12]} holds no model", hint=f"name one of {_with_models()}")


def input_of(store: Store, record: Record, name: str) -> Record:
    """Return the record of one input; raise StoreError if it is gone."""
    line = record.inputs.get(name)
    if not isinstance(line, Mapping):
        raise StoreError(
            f"{record.stage}/{record.key[:12]} does not say which {name} it was made with",
            hint="run its recipe again: a record that a pipeline makes says so",
        )
    found = store.find(line["stage"], line["key"])
    if found is None:
        raise StoreError(
            f"{record.stage}/{record.key[:12]} needs {line['stage']}/{line['key'][:12]}, which is gone",
            hint=remade_by(line["stage"]),
        )
    return found


def _with_models() -> str:
    return ", ".join((*TRAINED, PUBLISH.name, IMPORT.name))


def _steps(metrics: Mapping[str, Any]) -> int:
    steps = metrics.get("steps")
    return steps if isinstance(steps, int) else 0


def _results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {theirs: metrics[ours] for ours, theirs in _RESULTS.items() if metrics.get(ours) is not None}
