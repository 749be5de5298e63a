"""nanochat's published checkpoint folder: `model_%06d.pt`, `meta_%06d.json` and the tokenizer's two files.

Written: equal models give equal bytes, either flat or in upstream's cache layout (`tokenizer/` beside
`chatsft_checkpoints/<tag>/`, `mid_checkpoints`, `base_checkpoints`). Read: both, and a tag folder of either.
Files from elsewhere are hostile until proven otherwise: `torch_file` reads the weights,
`tokenizer_pickle` the tokenizer, and neither runs anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nanochat.config import ModelConfig
from nanochat.errors import ConfigError, DataError
from nanochat.formats.published import (
    FOLDERS,
    SOURCES,
    CheckpointFiles,
    Choice,
    Published,
    check_vocabulary,
    check_weights,
    model_config,
    read_object,
)
from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle, write_token_bytes, write_tokenizer_pickle
from nanochat.formats.torch_file import read_weights
from nanochat.model.architecture import architecture_of_state, plain_name
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.writing import save_torch

if TYPE_CHECKING:
    from torch import Tensor

# The settings that upstream's loader passes to its model; it refuses names it does not know. The last one
# exists in the architecture of 2026 alone.
_SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "window_pattern")
# What upstream's models do not have is kept beside the shape, where upstream does not look.
_OURS = ("document_token",)
_NO_RESULTS = {"step", "model_config", *_OURS}


def write_nanochat_folder(
    out: Path,
    *,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    step: int,
    results: Mapping[str, Any],
) -> None:
    """Write a flat folder; `results` join `step` and `model_config` in the meta file.

    Weights are float32 with upstream's names; token lengths are counted as upstream did at that time.
    """
    weights = {name: weight.detach().cpu().float().contiguous() for name, weight in sorted(state.items())}
    save_torch(weights, out / f"model_{step:06d}.pt")
    dumped = config.model_dump(mode="json", exclude_none=True)
    shape = {name: dumped[name] for name in _SHAPE if name in dumped}
    ours = {name: dumped[name] for name in _OURS if name in dumped}
    meta = {"step": step, **results, **ours, "model_config": shape}
    (out / f"meta_{step:06d}.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    write_tokenizer_pickle(tokenizer, out / "tokenizer.pkl")
    mode: Literal["raw", "decoded"] = "raw" if config.architecture == "2026" else "decoded"
    write_token_bytes(tokenizer, out / "token_bytes.pt", mode)


def to_cache_layout(folder: Path, source: str, tag: str) -> None:
    """Move the files of a flat folder to where upstream looks for them below its base directory."""
    places = {
        folder / FOLDERS[source] / tag: ("model_*.pt", "meta_*.json"),
        folder / "tokenizer": ("tokenizer.pkl", "token_bytes.pt"),
    }
    for target, patterns in places.items():
        files = [path for pattern in patterns for path in folder.glob(pattern)]
        target.mkdir(parents=True)
        for path in files:
            path.rename(target / path.name)


class _Candidate(NamedTuple):
    source: str | None
    tag: str | None
    step: int
    weights: Path

    def rank(self) -> tuple[int, int, float, int]:
        """Order of preference, the best last: source, depth, age where tags name no depth, step."""
        source = -SOURCES.index(self.source) if self.source else 0
        depth = re.fullmatch(r"d(\d{1,6})", self.tag or "")
        age = 0.0 if depth else self.weights.stat().st_mtime
        return source, int(depth[1]) if depth else -1, age, self.step

    def describe(self) -> str:
        return " ".join(filter(None, (self.source, self.tag, f"step {self.step}")))


def find_nanochat(folder: Path, choice: Choice) -> CheckpointFiles | None:
    """Return the files of the checkpoint that is meant, or None where the folder has none.

    The default is the newest step of the largest depth of the most finished training.

    Raises ConfigError for a choice that is not there, DataError for a checkpoint without tokenizer.
    """
    candidates = _candidates(folder)
    if not candidates:
        return None
    fitting = [
        c
        for c in candidates
        if choice.source in (None, c.source) and choice.tag in (None, c.tag) and choice.step in (None, c.step)
    ]
    if not fitting:
        wanted = [f"{k} {v}" for k, v in vars(choice).items() if v is not None] if choice else []
        there = ", ".join(c.describe() for c in sorted(candidates, key=_Candidate.rank)[-8:])
        raise ConfigError(f"{folder} has no checkpoint with {', '.join(wanted)}", hint=f"there is {there}")
    best = max(fitting, key=_Candidate.rank)
    name = best.weights.name.replace("model_", "meta_").replace(".pt", ".json")
    return CheckpointFiles(
        format="nanochat",
        weights=(best.weights,),
        description=best.weights.with_name(name),
        tokenizer=_tokenizer_file(folder, best),
        step=best.step,
        source=best.source,
        tag=best.tag,
        others=len(candidates) - 1,
    )


def _candidates(folder: Path) -> list[_Candidate]:
    """Look in the folder, in tag folders below it, and in upstream's folders of tag folders."""
    sources = {name: source for source, name in FOLDERS.items()}
    patterns = ["model_*.pt", "*/model_*.pt", *(f"{name}/*/model_*.pt" for name in sources)]
    found = []
    for weights in (path for pattern in patterns for path in folder.glob(pattern)):
        step = re.fullmatch(r"model_(\d{1,12})\.pt", weights.name)
        if step is None or weights.parent.name in sources:
            continue
        absolute = weights.absolute()
        source = sources.get(absolute.parents[1].name)
        tagged = source is not None or weights.parent != folder
        found.append(_Candidate(source, absolute.parent.name if tagged else None, int(step[1]), weights))
    return found


def _tokenizer_file(folder: Path, chosen: _Candidate) -> Path:
    near = chosen.weights.absolute().parent
    places = [near, near / "tokenizer", folder, folder / "tokenizer"]
    if chosen.source is not None:  # upstream's layout, and the folder named may be the innermost one
        places.append(near.parents[1] / "tokenizer")
    for place in places:
        if (place / "tokenizer.pkl").is_file():
            return place / "tokenizer.pkl"
    raise DataError(
        f"{folder}: no tokenizer.pkl here or in tokenizer/",
        hint="add the tokenizer.pkl that the model was trained with",
    )


def read_nanochat(found: CheckpointFiles) -> Published:
    """Return model and tokenizer of a checkpoint; raise DataError naming the file that does not fit."""
    from nanochat.model.checkpoint import model_from_state

    (weights,) = found.weights
    meta = read_object(found.description)
    shape = meta.get("model_config")
    if not isinstance(shape, dict):
        raise DataError(f"{found.description} has no model_config, so no model can be built from it")
    state = {plain_name(name): weight for name, weight in read_weights(weights).items()}
    ours = {name: meta[name] for name in _OURS if name in meta}
    config = model_config({**_with_architecture(shape, state), **ours}, found.description)
    check_weights(config, state, weights, found.description)
    published = Published(
        model=model_from_state(config, state, source=str(weights)),
        tokenizer=load_tokenizer_pickle(found.tokenizer),
        step=found.step,
        source=found.source or SOURCES[0],
        results={name: value for name, value in meta.items() if name not in _NO_RESULTS},
    )
    return check_vocabulary(published, found)


def _with_architecture(shape: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Name the architecture, which upstream's files do not; files without windows are from before them."""
    newer = architecture_of_state(state) == "2026"
    return {"window_pattern": "L", **shape, "architecture": "2026"} if newer else dict(shape)
