"""nanochat's published checkpoint folder: `model_%06d.pt`, `meta_%06d.json` and the tokenizer's two files.

Equal models give equal bytes. Reading such folders is not done here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.config import ModelConfig
from nanochat.tokenizer.pickle_format import write_token_bytes, write_tokenizer_pickle
from nanochat.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

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
