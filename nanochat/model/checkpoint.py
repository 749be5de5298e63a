"""A model on disk: `model.safetensors` (weights) and `config.json` (its `ModelConfig`).

Loading checks everything before a weight is set and names the file and what does not fit. Published
nanochat folders (`model_%06d.pt`) are not read here (`nanochat.formats`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nanochat.config import ModelConfig
from nanochat.errors import DataError
from nanochat.model.architecture import architecture_of_state, plain_name
from nanochat.model.gpt import GPT
from nanochat.model.mapped_memory import let_go
from nanochat.writing import save_tensors

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save_model(folder: Path, model: GPT) -> None:
    """Write weights and configuration into an existing folder; equal models give equal bytes."""
    state = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_tensors(state, folder / WEIGHTS)
    config = json.dumps(model.config.model_dump(mode="json"), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")


def load_model(folder: Path, device: torch.device | str = "cpu", *, mapped: bool = False) -> GPT:
    """Read a model in float32; raise `DataError` naming the file and the mismatch.

    With `mapped` the weights stay in the file, whose pages all processes share: for reading, since training
    writes to weights.
    """
    config = load_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{path} is missing", hint="a model folder holds model.safetensors and config.json")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}") from error
    if not mapped:
        state = {name: weight.clone() for name, weight in state.items()}
    return model_from_state(config, state, source=str(path), device=device)


def load_config(folder: Path) -> ModelConfig:
    """Read the model configuration of a model folder."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{path} is missing", hint="a model folder holds model.safetensors and config.json")
    try:
        return ModelConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a model configuration this version knows: {error}") from error


def model_from_state(
    config: ModelConfig, state: Mapping[str, Tensor], *, source: str, device: torch.device | str = "cpu"
) -> GPT:
    """Build a float32 model from named tensors of any float type; `source` is named in errors.

    Tensors that are float32 on the device already become the model's own, without a copy.
    """
    # Not on the meta device, whose first use imports for seconds; unset weights cost no memory.
    with torch.device(device):
        model = GPT(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {plain_name(name): weight for name, weight in state.items()}
    problems = _mismatches(expected, found)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        held = architecture_of_state(found)
        raise DataError(
            f"{source} does not fit architecture {config.architecture!r} with {config.n_layer} layers"
            f" of width {config.n_embd}: {shown}",
            hint=None
            if held in (config.architecture, None)
            else f"these are weights of architecture {held!r}; load them with a configuration that says so",
        )
    model.load_state_dict({name: _given(weight, device) for name, weight in found.items()}, assign=True)
    _refuse_not_finite(model, source)
    return model


def _given(weight: Tensor, device: torch.device | str) -> Tensor:
    given = weight.to(device, torch.float32)
    if given is not weight:
        let_go(weight)
    return given


def _refuse_not_finite(model: GPT, source: str) -> None:
    """Raise DataError for weights that give no text; one pass, 0.2 s for two gigabytes on one core."""
    for name, weight in model.state_dict().items():
        if not all(map(math.isfinite, torch.stack(torch.aminmax(weight)).tolist())):
            wrong = int((~weight.isfinite()).sum())
            raise DataError(
                f"{source}: {wrong:,} of the {weight.numel():,} weights in {name} are not finite numbers",
                hint="take an earlier checkpoint, or fetch the file again if it was whole where it came from",
            )


def _mismatches(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of it" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    return sorted(problems)
