"""The verbs about one model: `chat`, `import`, `export`. `flows.cli.app` registers them.

Each only parses, calls and prints; heavy modules are imported by the verbs that need them.
"""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, Source, Step, Tag, Weights, choice_of
from flows.cli.options import AsJson, Device, StoreUrl, open_store
from flows.display.quantities import bytes_text
from nanochat.config import Sampling

if TYPE_CHECKING:
    from flows.models.import_export import Exported


def chat(
    ref: ModelRef = "publish",
    store: StoreUrl = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="Answer this and exit.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = Sampling.temperature,
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample among this many tokens.")] = Sampling.top_k,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = Sampling.max_new_tokens,
    seed: Annotated[int, typer.Option(help="Same seed and conversation, same answer.")] = Sampling.seed,
    device: Device = "cpu",
    weights: Weights = "auto",
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
) -> None:
    """Talk to a model, or answer one prompt."""
    from flows.models.find import open_engine
    from nanochat.chat import terminal

    _, opened = open_store(store)
    engine = open_engine(opened, ref, choice_of(source, tag, step), device, weights)
    settings = Sampling(temperature=temperature, top_k=top_k, max_new_tokens=max_tokens, seed=seed)
    if prompt is not None:
        session = terminal.ChatSession(engine, settings)
        output.write(f"{''.join(session.ask(prompt))}\n")
        if session.cut:
            output.say(terminal.CUT)
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is not UTF-8 does not end the conversation
    terminal.chat(engine, lambda: input("you> "), output.write, settings)


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
        Literal["nanochat", "transformers"],
        typer.Option(
            "--format",
            help="nanochat: for upstream and its scripts; transformers: for AutoModelForCausalLM.",
        ),
    ] = "nanochat",
    layout: Annotated[
        Literal["flat", "cache"],
        typer.Option(
            help="For nanochat's format: all files in DIR, or DIR as upstream's base directory.",
        ),
    ] = "flat",
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
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
        choice=choice_of(source, tag, step),
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
