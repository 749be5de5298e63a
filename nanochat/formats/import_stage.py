"""The import stage: a published folder from elsewhere becomes a model and tokenizer in our own form.

The result is one folder that `load_model` and `Tokenizer.load` both read, with `nanochat.json` beside them:
the step, which training made the model, and what else its publisher says about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nanochat.config import ImportConfig
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.published import Choice
from nanochat.formats.transformers_folder import NOTE, write_note
from nanochat.model.checkpoint import save_model
from nanochat.model.flops import parameter_count
from nanochat.runtime import Runtime


def import_folder(
    config: ImportConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, float | int | str]:
    """Read the checkpoint of `config.folder` and write it in our form; `inputs` is empty."""
    runtime.raise_if_stopped()
    in_nanochats = config.format == "nanochat"  # the other format holds one checkpoint
    choice = Choice(source=config.source, tag=config.tag, step=config.step) if in_nanochats else Choice()
    published = read_published(find_published(Path(config.folder), choice))
    save_model(out, published.model)
    published.tokenizer.save(out)
    write_note(out / NOTE, published)
    shape = published.model.config
    return {
        "parameters": parameter_count(shape),
        "step": published.step,
        "architecture": shape.architecture,
        "layers": shape.n_layer,
        "vocab_size": shape.vocab_size,
    }
