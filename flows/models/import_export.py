"""Models in and out of the store: imports a published folder, exports a model in a published format.

An import is a stage like any other, with a key from the bytes of the files; but no recipe asks for it. An
export is written beside its target and renamed, so that a partial one is never taken for a complete one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.models.account import write_account
from flows.models.find import folder_of, open_model
from flows.plan.key import payload_of
from flows.run.execute import ExecutionContext, Job, Outcome, execute
from flows.stage import Node
from flows.stages import IMPORT, PUBLISH
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from nanochat.config import ImportConfig, SourceFile
from nanochat.config.names import checked_place
from nanochat.errors import ConfigError, DataError
from nanochat.file_digest import sha256_of
from nanochat.runtime import NullTracker, Runtime

if TYPE_CHECKING:
    from nanochat.formats.gguf_weights import WeightType
    from nanochat.formats.published import CheckpointFiles, Choice, Published

Format = Literal["nanochat", "transformers", "gguf", "mlx"]
Layout = Literal["flat", "cache"]
Sign = Callable[[Path], None]


def import_model(
    store: Store, scratch: Path, folder: Path, choice: Choice
) -> tuple[Outcome, CheckpointFiles]:
    """Put a published model into the store, to be kept until its root is dropped.

    Raises:
        ConfigError: the folder or checkpoint does not exist.
        DataError: a file is missing, damaged, hostile or does not fit.
    """
    from nanochat.formats.folder import find_published

    found = find_published(folder, choice)
    node = Node(id=IMPORT.name, stage=IMPORT, config=import_config(found, folder))
    payload = payload_of(node, {})
    job = Job(node=node, key=fingerprint(payload), payload=payload, inputs={}, lineage={})
    context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime())
    with store.hold(IMPORT.name) as hold:
        hold.add([(IMPORT.name, job.key)])
        outcome = execute(job, context, NullTracker, dict)
        store.set_root(f"import-{job.key[:12]}", [(IMPORT.name, job.key)])
    return outcome, found


def import_config(found: CheckpointFiles, folder: Path) -> ImportConfig:
    """Return what the import stage is to read, with the sums of its files."""
    note = found.description.with_name("nanochat.json")  # holds step and results in transformers' format
    more = [note] if found.format == "transformers" and note.is_file() else []
    files = [*found.weights, found.description, found.tokenizer, *more]
    return ImportConfig(
        format=found.format,
        step=found.step,
        source=found.source,
        files=tuple(_line(file) for file in files if file.is_file()),
        folder=str(folder.absolute()),
        tag=found.tag,
    )


def _line(file: Path) -> SourceFile:
    try:
        path = checked_place(file.name)
    except ValueError as error:
        raise DataError(f"{file.parent}: {error}", hint="rename the file") from error
    return SourceFile(path=path, size_bytes=file.stat().st_size, version=sha256_of(file))


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    step: int
    parameters: int
    files: tuple[tuple[str, int], ...]  # path below the folder, bytes


def export_model(
    store: Store,
    ref: str,
    target: Path,
    *,
    form: Format,
    layout: Layout = "flat",
    kind: WeightType | None = None,
    choice: Choice,
    sign: Sign | None = None,
) -> Exported:
    """Write the model that a reference names to a new folder; `kind` is how a GGUF file keeps its weights.

    If it is signed, what the model was made from is beside it.

    Raises ConfigError for a target that is in use or an architecture that the format does not have, and
    as `open_model` does.
    """
    from nanochat.model.flops import parameter_count

    if layout == "cache" and form != "nanochat":
        raise ConfigError("--layout cache is upstream nanochat's own", hint="use it with --format nanochat")
    if kind and form != "gguf":
        raise ConfigError(f"--type {kind} is of a GGUF file's weights", hint="use it with --format gguf")
    refuse_used(target)
    record = None if folder_of(ref) else store.resolve(ref)
    published = open_model(store, ref, choice)
    with _new_folder(target) as part:
        if form == "gguf":
            _write_gguf(part, published, kind, store, ref, choice)
        else:
            _write(part, published, form, layout)
        if record and record.stage == PUBLISH.name and form == "nanochat":
            _copy_card(store, record, part)
        if sign:
            write_account(store, ref, part)
            sign(part)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return Exported(
        target,
        published.step,
        parameter_count(published.model.config),
        tuple((path.relative_to(target).as_posix(), path.stat().st_size) for path in files),
    )


def _write(folder: Path, published: Published, form: Format, layout: Layout) -> None:
    from nanochat.formats.mlx_folder import write_mlx_folder
    from nanochat.formats.nanochat_folder import to_cache_layout, write_nanochat_folder
    from nanochat.formats.transformers_folder import write_transformers_folder

    if form != "nanochat":
        (write_mlx_folder if form == "mlx" else write_transformers_folder)(folder, published)
        return
    config = published.model.config
    write_nanochat_folder(
        folder,
        state=published.model.state_dict(),
        config=config,
        tokenizer=published.tokenizer,
        step=published.step,
        results=published.results,
    )
    if layout == "cache":
        to_cache_layout(folder, published.source, f"d{config.n_layer}")


def _write_gguf(
    folder: Path, published: Published, kind: WeightType | None, store: Store, ref: str, choice: Choice
) -> None:
    from flows.models.origin import origin_of
    from nanochat.formats.gguf_file import DEFAULT_TYPE, write_gguf_folder

    write_gguf_folder(folder, published, kind or DEFAULT_TYPE, origin_of(store, ref, choice))


def _copy_card(store: Store, record: Record, folder: Path) -> None:
    """Put the model card, the script and the results beside the weights, as the publish stage did."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = store.fetch(record, Path(scratch), attachments=True)
        for name in ("results.json", *(file.path for file in record.attachments)):
            shutil.copyfile(kept / name, folder / name)


def refuse_used(target: Path) -> None:
    """Raise ConfigError for a folder that is not new or empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists already and is not an empty folder", hint="name a new folder")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder that becomes `target` once the block has ended well."""
    target = target.resolve()  # a name to put the new one beside, also for `.`
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    part.mkdir()
    try:
        yield part
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
