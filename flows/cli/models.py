"""The verbs about one model's folder: `import`, `export`. `flows.cli.app` registers them.

Each only parses, calls and prints; heavy modules are imported by the verbs that need them.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, SignKey, Source, Step, Tag, choice_of
from flows.cli.options import AsJson, StoreUrl, open_store
from flows.cli.signed import signing
from flows.display.quantities import bytes_text

if TYPE_CHECKING:
    from flows.models.import_export import Exported


def import_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A published model: nanochat's files, flat or in upstream's folders, or transformers'.",
        ),
    ],
    store: StoreUrl = None,
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Put a published model folder into the store.

    `chat`, `eval` and `export` then take it as `import`; the same files are stored once.
    """
    from flows.models.import_export import import_model

    settings, opened = open_store(store)
    choice = choice_of(source, tag, step)
    outcome, found = import_model(opened, settings.scratch, folder.expanduser(), choice)
    record = outcome.record
    ref = f"{record.stage}/{record.key[:12]}"
    if as_json:
        content = {"record": ref, "key": record.key, "digest": record.digest, "cached": outcome.cached}
        output.show_json(content | {"format": found.format, "metrics": dict(record.metrics)})
        return
    if found.others:
        output.say(f"took {found.weights[0]}, one of {found.others + 1} checkpoints")
    output.show(ref)
    shape, at_store = record.metrics, ["--store", store] if store else []
    output.say(
        f"{'was there already' if outcome.cached else 'imported'}: {shape['architecture']} model of"
        f" {shape['layers']} layers, {shape['parameters']:,} parameters, {shape['vocab_size']:,} tokens;"
        f" step {shape['step']}\nnext: {shlex.join(['nanochat', 'chat', ref, *at_store])}"
    )


def export(
    ref: ModelRef,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write; it must be new or empty.")
    ],
    store: StoreUrl = None,
    form: Annotated[
        Literal["nanochat", "transformers", "gguf", "mlx"],
        typer.Option(
            "--format",
            help="nanochat: for upstream and its scripts; transformers: for AutoModelForCausalLM; gguf: for"
            " llama.cpp, Ollama and LM Studio; mlx: for mlx-lm on a Mac; both of them classic models alone.",
        ),
    ] = "nanochat",
    layout: Annotated[
        Literal["flat", "cache"],
        typer.Option(
            help="For nanochat's format: all files in DIR, or DIR as upstream's base directory.",
        ),
    ] = "flat",
    kind: Annotated[
        Literal["f32", "bf16", "f16", "q8_0", "q4_K"] | None,
        typer.Option(
            "--type",
            help="For gguf: how weights are kept (default: q8_0). Fewer bits are smaller and faster, and lose"
            " more: docs/publishing.md has figures.",
        ),
    ] = None,
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    sign: SignKey = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as a folder that other programs load."""
    from flows.models.import_export import export_model

    _, opened = open_store(store)
    done = export_model(
        opened,
        ref,
        folder.expanduser(),
        form=form,
        layout=layout,
        kind=kind,
        choice=choice_of(source, tag, step),
        sign=signing(sign),
    )
    if as_json:
        files = [{"path": path, "size": size} for path, size in done.files]
        content = {"folder": str(done.folder), "format": form, "step": done.step}
        output.show_json(content | {"parameters": done.parameters, "files": files})
        return
    _tell_exported(done)


def _tell_exported(done: Exported) -> None:
    output.show(str(done.folder))
    for path, size in done.files:
        output.say(f"  {path:<32} {bytes_text(size):>10}")
    for path, _ in done.files:
        if path.endswith(".gguf"):
            output.say(f"next: {shlex.join(['llama-server', '-m', str(done.folder / path)])}")
