"""The folder that the transformers package loads: `AutoModelForCausalLM` and `AutoTokenizer`, and back.

Written: `config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json` with a chat template
that renders the training format, `generation_config.json`, and `nanochat.json` with the step and results,
which transformers does not read; for a model of 2026 also the code of its class, which transformers lacks.
Nothing is written that the class named in `config.json` would take for something else.

What differs there: it does not run the calculator. It finds special tokens in text, unless it is given
`split_special_tokens=True`; so the chat template refuses messages that contain the text of one, and adjacent
text parts, whose tokens would join: it renders what training saw or nothing. For classic models transformers
keeps its rotary tables in float32, where the model was trained with tables rounded to bfloat16, so logits
differ by 3.4e-4 at most over the recorded prompts, and by nothing once its tables are rounded too. Its usual
RMS-norm eps of 1e-6 (1e-5 in those logits) is replaced by ours in `config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from nanochat.formats.transformers_form import FORMS, SHAPE, TransformersForm
from nanochat.model.architecture import ARCHITECTURES
from nanochat.tokenizer.tokenizer import special_text
from nanochat.writing import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
NOTE = "nanochat.json"
_INDEX = "model.safetensors.index.json"
_CODE = "nanochat.formats.transformers_2026"


def write_transformers_folder(out: Path, published: Published, form: TransformersForm | None = None) -> None:
    """Write the folder, in the form of the architecture or another; equal models give equal bytes.

    Weights are float32. Raises DataError, before anything is written, for what the class would misread.
    """
    config, state = published.model.config, published.model.state_dict()
    form = form or FORMS[config.architecture]
    weights = {
        form.their_name(name): weight.detach().cpu().float().contiguous() for name, weight in state.items()
    }
    special = {name: published.tokenizer.special(name) for name in ("bos", "assistant_end")}
    described = _config(config, form, special)
    sizes = {name: tuple(weight.shape) for name, weight in weights.items()}
    refuse_misread(described, sizes, config, form.sizes)
    save_tensors(weights, out / WEIGHTS, metadata={"format": "pt"})
    _write(out / "config.json", described)
    _write(out / "generation_config.json", _token_roles(special) | _SAMPLING)
    write_tokenizer_json(published.tokenizer, out / "tokenizer.json")
    _write(out / "tokenizer_config.json", _tokenizer_config(config))
    write_note(out / NOTE, published)
    for module in sorted({name.partition(".")[0] for name in form.code.values()}):
        (out / f"{module}.py").write_text(_class_code(module), encoding="utf-8")


def _class_code(module: str) -> str:
    """Return the text of a module as it stands in a folder: what it imports of its package lies beside it."""
    text = files(_CODE).joinpath(f"{module}.py").read_text(encoding="utf-8")
    return text.replace(f"from {_CODE}.", "from .")


def refuse_misread(
    described: Mapping[str, Any],
    sizes: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    held: Callable[[ModelConfig], Mapping[str, tuple[int, ...]]] | None = None,
) -> None:
    """Raise DataError unless the class that `config.json` names is the model's, and reads all of its tensors.

    A class drops tensors that it does not know and invents those that it lacks, and transformers loads on.
    `held` says what the class holds where it is not transformers' own.
    """
    source = Path("config.json")
    form, read = _form_of(described, source), _our_config(described, source)
    expected = (held or form.sizes)(read)
    named = (described.get("architectures"), described.get("auto_map", {}))
    problems = [] if named == ([form.causal_class], form.code) else [f"be loaded as {named}"]
    problems += [f"drop {name}" for name in sizes.keys() - expected.keys()]
    problems += [f"invent {name}" for name in expected.keys() - sizes.keys()]
    problems += [
        f"take {name} for {expected[name]} where it is {size}"
        for name, size in sizes.items()
        if expected.get(name, size) != size
    ]
    if not problems and read != config:
        problems = [f"read the shape {read.model_dump()} for {config.model_dump()}"]
    if problems:
        shown = ", ".join(sorted(problems)[:4]) + (f" and {len(problems) - 4} more" if problems[4:] else "")
        raise DataError(
            f"nothing was written: transformers' {form.causal_class} would {shown}",
            hint="use --format nanochat",
        )


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


# As `nanochat chat` samples.
_SAMPLING = {"do_sample": True, "temperature": Sampling.temperature, "top_k": Sampling.top_k}


def _token_roles(special: Mapping[str, int]) -> dict[str, Any]:
    """Return which tokens begin, end and pad; an answer also ends where another document would begin."""
    bos, end = special["bos"], special["assistant_end"]
    return {"bos_token_id": bos, "eos_token_id": [end, bos], "pad_token_id": bos}


def _config(config: ModelConfig, form: TransformersForm, special: Mapping[str, int]) -> dict[str, Any]:
    optional = {theirs: getattr(config, ours) for ours, theirs in form.optional.items()}
    return {
        "architectures": [form.causal_class],
        **({"auto_map": dict(form.code)} if form.code else {}),
        **form.fixed(config.n_embd),
        **{theirs: getattr(config, ours) for ours, theirs in SHAPE.items()},
        **_token_roles(special),
        **{name: value for name, value in optional.items() if value is not None},
        **form.written(),
        "dtype": "float32",
        "use_cache": True,
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


def find_transformers(folder: Path, choice: Choice) -> CheckpointFiles | None:
    """Return the files of a transformers folder, or None where it is not one."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    _form_of(read_object(config), config)
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

    theirs = read_object(found.description)
    form, config = _form_of(theirs, found.description), _our_config(theirs, found.description)
    state = {form.our_name(name): weight for file in found.weights for name, weight in _load(file).items()}
    weights = found.weights[0]
    check_weights(config, state, weights, found.description)
    json_form = found.tokenizer.suffix == ".json"
    published = Published(
        model=model_from_state(config, state, source=str(weights)),
        tokenizer=(read_tokenizer_json if json_form else load_tokenizer_pickle)(found.tokenizer),
        **read_note(found.description.with_name(NOTE)),
    )
    return check_vocabulary(published, found)


def _form_of(theirs: Mapping[str, Any], path: Path) -> TransformersForm:
    """Return the form of what a `config.json` describes."""
    kind = theirs.get("model_type")
    found = next((form for form in FORMS.values() if form.model_type == kind), None)
    if found is None:
        known = " or ".join(repr(form.model_type) for form in FORMS.values())
        raise DataError(
            f"{path}: model_type is {kind!r}, not {known}", hint="only nanochat models can be read"
        )
    return found


def _our_config(theirs: Mapping[str, Any], path: Path) -> ModelConfig:
    form = _form_of(theirs, path)
    shape = {ours: theirs[name] for ours, name in SHAPE.items() if theirs.get(name) is not None}
    shape.setdefault("n_kv_head", shape.get("n_head"))
    missing = [SHAPE[name] for name in SHAPE if shape.get(name) is None]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}")
    more = {ours: theirs[name] for ours, name in form.optional.items() if theirs.get(name) is not None}
    config = model_config({"architecture": form.architecture, **shape, **more}, path)
    fixed = form.fixed(config.n_embd)
    given = {**theirs, **({"rope_parameters": _rope(theirs)} if "rope_parameters" in fixed else {})}
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise DataError(f"{path}: {name} is {given[name]!r}, where this model has {value!r}")
    return config


def _rope(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return how positions are turned; older files keep the base outside of `rope_parameters`."""
    rope = theirs.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    base = rope.get("rope_theta", theirs.get("rope_theta", ARCHITECTURES["classic"].rope_base))
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
