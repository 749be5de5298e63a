"""nanochat's published checkpoint folder: `model_%06d.pt`, `meta_%06d.json` and the tokenizer's two files.

Written: equal models give equal bytes. Read: a flat folder, or upstream's cache layout with `tokenizer/` and
`chatsft_checkpoints/<tag>/` below it. Files from elsewhere are hostile until proven otherwise: weights are
unpickled as tensors alone, the tokenizer by a reader that admits one class.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from nanochat.config import ModelConfig
from nanochat.errors import DataError
from nanochat.tokenizer.pickle_format import load_tokenizer_pickle, write_token_bytes, write_tokenizer_pickle
from nanochat.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from nanochat.model.gpt import GPT

# The settings that upstream's loader passes to its model; it refuses names it does not know.
_SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")


def write_nanochat_folder(
    out: Path,
    *,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    step: int,
    results: Mapping[str, float],
) -> None:
    """Write a folder that upstream nanochat loads; `results` join `step` and `model_config` in the meta file.

    Weights are float32 with upstream's names.
    """
    import torch

    weights = {name: weight.detach().cpu().float().contiguous() for name, weight in sorted(state.items())}
    # In memory first: given a path, torch.save writes the file's name into the archive.
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    (out / f"model_{step:06d}.pt").write_bytes(buffer.getbuffer())
    shape = config.model_dump(mode="json", include=set(_SHAPE))
    meta = {"step": step, **results, "model_config": {name: shape[name] for name in _SHAPE}}
    (out / f"meta_{step:06d}.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    write_tokenizer_pickle(tokenizer, out / "tokenizer.pkl")
    write_token_bytes(tokenizer, out / "token_bytes.pt")


def read_nanochat_folder(folder: Path) -> tuple[GPT, Tokenizer]:
    """Return model and tokenizer of a published folder, the newest step if there are several.

    Raises DataError naming the file that is missing, hostile or does not fit.
    """
    from nanochat.model.checkpoint import model_from_state

    weights = _weights_file(folder)
    meta = weights.with_name(weights.name.replace("model_", "meta_").replace(".pt", ".json"))
    try:
        config = ModelConfig(**json.loads(meta.read_text(encoding="utf-8"))["model_config"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{meta}: not the description of a model: {type(error).__name__}: {error}") from error
    model = model_from_state(config, _read_weights(weights), source=str(weights))
    tokenizer = load_tokenizer_pickle(_tokenizer_file(folder, weights))
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}",
            hint="put the tokenizer.pkl beside it that the model was trained with",
        )
    return model, tokenizer


def _weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("model_*.pt"))
    for stage in ("chatsft", "mid", "base"):
        found = found or sorted(folder.glob(f"{stage}_checkpoints/*/model_*.pt"))
    if not found:
        raise DataError(
            f"{folder}: no model_*.pt here or below chatsft_checkpoints/",
            hint="name a stage of the store, or a folder in nanochat's published format",
        )
    return found[-1]


def _tokenizer_file(folder: Path, weights: Path) -> Path:
    places = [folder, folder / "tokenizer", weights.parent, weights.parents[2] / "tokenizer"]
    for place in places:
        if (place / "tokenizer.pkl").is_file():
            return place / "tokenizer.pkl"
    raise DataError(f"{folder}: no tokenizer.pkl here or in tokenizer/")


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whichever it was, nothing of the file was run
        raise DataError(
            f"{path}: not a plain file of weights: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="the file is damaged, or holds code, which is never run",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DataError(f"{path}: holds other things than named tensors")
    return state
