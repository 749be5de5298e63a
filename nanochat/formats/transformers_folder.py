"""The folder that the transformers package loads: `AutoModelForCausalLM` and `AutoTokenizer`, and back.

Written: `config.json` (`model_type: nanochat`), `model.safetensors`, `tokenizer.json`,
`tokenizer_config.json` with a chat template that renders the training format, `generation_config.json`, and
`nanochat.json` with the step and results, which transformers does not read. None of its code is needed.

What differs there: transformers keeps its rotary tables in float32, where the model was trained with tables
rounded to bfloat16, so logits differ by 3.4e-4 at most over the recorded prompts, and by nothing once its
tables are rounded too. Its usual RMS-norm eps of 1e-6 (1e-5 in those logits) is replaced by ours in
`config.json`. It does not run the calculator. It finds special tokens in text, unless it is given
`split_special_tokens=True`; so the chat template refuses messages that contain the text of one, and adjacent
text parts, whose tokens would join: it renders what training saw or nothing. The architecture of 2026 is not
known to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.config import ModelConfig, Sampling
from nanochat.errors import ConfigError, DataError
from nanochat.formats.published import (
    SOURCES,
    CheckpointFiles,
    Choice,
    Published,
    check_vocabulary,
    check_weights,
    model_config,
    read_object,
)
from nanochat.formats.tokenizer_json import read_tokenizer_json, write_tokenizer_json
from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle
from nanochat.model.architecture import ARCHITECTURES
from nanochat.tokenizer.tokenizer import special_text
from nanochat.writing import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
NOTE = "nanochat.json"
_CLASSIC = ARCHITECTURES["classic"]
_INDEX = "model.safetensors.index.json"
# Ours -> theirs; `{}` is the number of the layer.
_NAMES = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "lm_head.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_SHAPE = {
    "sequence_len": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
}


def write_transformers_folder(out: Path, published: Published) -> None:
    """Write the folder; equal models give equal bytes. Weights are float32.

    Raises ConfigError for an architecture that transformers does not have.
    """
    config = published.model.config
    if config.architecture != "classic":
        raise ConfigError(
            f"the model is of architecture {config.architecture!r}; transformers has only the classic one",
            hint="use --format nanochat",
        )
    state = published.model.state_dict()
    weights = {
        _their_name(name): weight.detach().cpu().float().contiguous() for name, weight in state.items()
    }
    save_tensors(weights, out / WEIGHTS, metadata={"format": "pt"})
    special = {name: published.tokenizer.special(name) for name in ("bos", "assistant_end")}
    _write(out / "config.json", _config(config, special))
    _write(out / "generation_config.json", _token_roles(special) | _SAMPLING)
    write_tokenizer_json(published.tokenizer, out / "tokenizer.json")
    _write(out / "tokenizer_config.json", _tokenizer_config(config))
    write_note(out / NOTE, published)


def write_note(path: Path, published: Published) -> None:
    """Write what is known about a model beside its weights."""
    note = {"step": published.step, "source": published.source, "results": dict(published.results)}
    _write(path, note)


def read_note(path: Path) -> dict[str, Any]:
    """Return step, source and results as `Published` takes them; nothing where there is no such file."""
    note = read_object(path) if path.is_file() else {}
    step, source, results = note.get("step", 0), note.get("source", SOURCES[0]), note.get("results", {})
    if type(step) is not int or step < 0 or source not in SOURCES or not isinstance(results, dict):
        raise DataError(f"{path}: step, source and results must be a number, one of {SOURCES} and an object")
    return {"step": step, "source": source, "results": results}


_DOCUMENT_TOKEN = "document_token"  # ours alone: transformers keeps it and does not ask what it means

# As `nanochat chat` samples.
_SAMPLING = {"do_sample": True, "temperature": Sampling.temperature, "top_k": Sampling.top_k}


def _token_roles(special: Mapping[str, int]) -> dict[str, Any]:
    """Return which tokens begin, end and pad; an answer also ends where another document would begin."""
    bos, end = special["bos"], special["assistant_end"]
    return {"bos_token_id": bos, "eos_token_id": [end, bos], "pad_token_id": bos}


def _config(config: ModelConfig, special: Mapping[str, int]) -> dict[str, Any]:
    from nanochat.model.attention import RMS_EPS

    return {
        "architectures": ["NanoChatForCausalLM"],
        **_fixed(config.n_embd),
        **{theirs: getattr(config, ours) for ours, theirs in _SHAPE.items()},
        **_token_roles(special),
        **({} if config.document_token is None else {_DOCUMENT_TOKEN: config.document_token}),
        "rms_norm_eps": RMS_EPS,
        "dtype": "float32",
        "use_cache": True,
    }


def _fixed(n_embd: int) -> dict[str, Any]:
    """Return the settings that the classic architecture leaves no choice about."""
    from nanochat.model.gpt import LOGIT_CAP

    return {
        "model_type": "nanochat",
        "intermediate_size": 4 * n_embd,
        "hidden_act": "relu2",
        "final_logit_softcapping": LOGIT_CAP,
        "rope_parameters": {"rope_type": "default", "rope_theta": _CLASSIC.rope_base},
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    template = files("nanochat.formats").joinpath("chat_template.jinja").read_text(encoding="utf-8")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special_text("bos"),
        "eos_token": special_text("assistant_end"),
        "pad_token": special_text("bos"),
        "model_max_length": config.sequence_len,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }


def _their_name(name: str) -> str:
    return _renamed(name, _NAMES, "transformer.h.", "model.layers.", _LAYER_NAMES)


def _our_name(name: str) -> str:
    """Return our name of a tensor; one that is none of theirs is left as it is, to be refused."""
    layers = {theirs: ours for ours, theirs in _LAYER_NAMES.items()}
    return _renamed(name, {v: k for k, v in _NAMES.items()}, "model.layers.", "transformer.h.", layers)


def _renamed(name: str, whole: Mapping[str, str], old: str, new: str, parts: Mapping[str, str]) -> str:
    if name in whole:
        return whole[name]
    layer, _, rest = name.removeprefix(old).partition(".")
    part = parts.get(rest.removesuffix(".weight"))
    return f"{new}{layer}.{part}.weight" if name.startswith(old) and part else name


def find_transformers(folder: Path, choice: Choice) -> CheckpointFiles | None:
    """Return the files of a transformers folder, or None where it is not one."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    kind = read_object(config).get("model_type")
    if kind != "nanochat":
        raise DataError(
            f"{config}: model_type is {kind!r}, not 'nanochat'", hint="only nanochat models can be read"
        )
    if choice != Choice():
        raise ConfigError(f"{folder} is in transformers' format, which holds one checkpoint: give no choice")
    tokenizers = [folder / "tokenizer.json", folder / "tokenizer.pkl"]
    tokenizer = next((path for path in tokenizers if path.is_file()), None)
    if tokenizer is None:
        raise DataError(f"{folder}: no tokenizer.json", hint="fetch all files of the model")
    note = read_note(folder / NOTE)
    return CheckpointFiles(
        format="transformers",
        weights=_weight_files(folder),
        description=config,
        tokenizer=tokenizer,
        step=note["step"],
        source=note["source"],
    )


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    index = folder / _INDEX
    if not index.is_file():
        hint = (
            "save it with safe_serialization" if any(folder.glob("*.bin")) else "fetch all files of the model"
        )
        raise DataError(f"{folder}: no {WEIGHTS} and no {_INDEX}", hint=hint)
    parts = read_object(index).get("weight_map")
    names = sorted(set(map(str, parts.values()))) if isinstance(parts, dict) else []
    for name in names:
        if "/" in name or "\\" in name or not (folder / name).is_file():
            raise DataError(f"{index} names the file {name!r}, which is not in the folder")
    return tuple(folder / name for name in names)


def read_transformers(found: CheckpointFiles) -> Published:
    """Return model and tokenizer of a transformers folder; raise DataError naming what does not fit."""
    from nanochat.model.checkpoint import model_from_state

    config = _our_config(found.description)
    state = {_our_name(name): weight for file in found.weights for name, weight in _load(file).items()}
    weights = found.weights[0]
    check_weights(config, state, weights, found.description)
    json_form = found.tokenizer.suffix == ".json"
    published = Published(
        model=model_from_state(config, state, source=str(weights)),
        tokenizer=(read_tokenizer_json if json_form else load_tokenizer_pickle)(found.tokenizer),
        **read_note(found.description.with_name(NOTE)),
    )
    return check_vocabulary(published, found)


def _our_config(path: Path) -> ModelConfig:
    theirs = read_object(path)
    shape = {ours: theirs[name] for ours, name in _SHAPE.items() if theirs.get(name) is not None}
    shape.setdefault("n_kv_head", shape.get("n_head"))
    missing = [_SHAPE[name] for name in _SHAPE if shape.get(name) is None]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}")
    ours = {"document_token": theirs[_DOCUMENT_TOKEN]} if _DOCUMENT_TOKEN in theirs else {}
    config = model_config({**shape, **ours}, path)
    given = {**theirs, "rope_parameters": _rope(theirs)}
    for name, fixed in _fixed(config.n_embd).items():
        if given.get(name, fixed) != fixed:
            raise DataError(f"{path}: {name} is {given[name]!r}, where this model has {fixed!r}")
    return config


def _rope(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return how positions are turned; older files keep the base outside of `rope_parameters`."""
    rope = theirs.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    base = rope.get("rope_theta", theirs.get("rope_theta", _CLASSIC.rope_base))
    return {"rope_type": rope.get("rope_type", "default"), "rope_theta": base}


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is not a whole safetensors file: {error}",
            hint="the file is cut off or damaged: fetch it again",
        ) from error


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
