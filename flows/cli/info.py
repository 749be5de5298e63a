"""The verb `info`: what a model is, and what each kind of weights costs. `flows.cli.app` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, Source, Step, Tag, choice_of
from flows.cli.options import AsJson, Device, StoreUrl, open_store
from flows.cli.tables import plain_table
from flows.display.quantities import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from flows.models.describe import Description, WeightsCost
    from flows.models.held_out_text import HeldOut
    from nanochat.model.gpt import GPT


def info(
    ref: ModelRef = "publish",
    store: StoreUrl = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Measure on this text (default: the validation text of the model's training, else a built-in"
            " English one)."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Measure on this many tokens at most (default: what takes some seconds)."),
    ] = None,
    device: Device = "cpu",
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Describe a model, and measure what its weights cost.

    Each kind of weights that `--weights` of other verbs takes is measured: its memory, its bits per byte,
    and how many of the tokens that the model finds likeliest differ from those of float32.
    """
    from flows.models.describe import describe, text_for, weights_costs
    from flows.models.find import open_engine
    from nanochat.model.device import device_of

    _, opened = open_store(store)
    choice = choice_of(source, tag, step)
    model = describe(opened, ref, choice)
    if not as_json:
        output.show(_model_text(model))
    measured = text_for(opened, model, text, tokens)
    output.say(f"measuring on {measured.tokens:,} tokens, {measured.size:,} bytes, of {measured.source}")

    def with_weights(kind: str) -> GPT:
        return open_engine(opened, ref, choice, device, kind).model

    costs = list(weights_costs(model, with_weights, measured, device_of(device)))
    if as_json:
        output.show_json(_as_json(model, measured, costs))
        return
    output.show("")
    output.show(_costs_table(costs, measured))


def _model_text(model: Description) -> str:
    shape = model.config
    heads = f"{shape.n_head} heads of {shape.n_embd // shape.n_head}"
    if shape.n_kv_head != shape.n_head:
        heads += f", {shape.n_kv_head} for keys and values"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in model.parameters.items())
    words = model.tokenizer
    lines = {
        "model": f"{model.name}, step {model.step:,}",
        "architecture": f"{shape.architecture}: {shape.n_layer} layers of width {shape.n_embd}, {heads}",
        "parameters": f"{sum(model.parameters.values()):,}: {kinds}",
        "context": f"{shape.sequence_len:,} tokens",
        "tokenizer": f"{words.vocab_size:,} tokens, {len(words.special_tokens)} of them special",
        "file": ", ".join(f"{name} {bytes_text(size)}" for name, size in model.files.items()),
    }
    return "\n".join(f"{name:<14}{value}" for name, value in lines.items())


def _costs_table(costs: Sequence[WeightsCost], text: HeldOut) -> Table:
    table = plain_table("weights", "memory", "bits per byte", "change", "flipped tokens")
    for cost in costs:
        table.add_row(
            cost.weights,
            bytes_text(cost.memory_bytes),
            f"{cost.bits_per_byte:.4f}",
            f"{cost.bits_per_byte - costs[0].bits_per_byte:+.4f}",
            f"{cost.flipped:,} of {text.tokens:,} ({cost.flipped / text.tokens:.2%})",
        )
    return table


def _as_json(model: Description, text: HeldOut, costs: Sequence[WeightsCost]) -> dict[str, Any]:
    return {
        "model": model.name,
        "step": model.step,
        "config": model.config.model_dump(mode="json"),
        "parameters": {**model.parameters, "total": sum(model.parameters.values())},
        "files": [{"path": path, "size": size} for path, size in model.files.items()],
        "context_tokens": model.config.sequence_len,
        "vocab_size": model.tokenizer.vocab_size,
        "text": {"source": text.source, "tokens": text.tokens, "bytes": text.size},
        "weights": {
            cost.weights: {
                "memory_bytes": cost.memory_bytes,
                "bits_per_byte": cost.bits_per_byte,
                "flipped_tokens": cost.flipped,
                "flipped_share": cost.flipped / text.tokens,
            }
            for cost in costs
        },
    }
