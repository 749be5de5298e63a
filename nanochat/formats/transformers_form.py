"""How each architecture is written for transformers: its class there, what that is called, and what it holds.

The classic architecture is a class of transformers. That of 2026 is not: its folder carries the code of the
class (`transformers_2026`), under a type of its own, so that no class of transformers takes it for its own.
Not here: files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nanochat.config import SMEAR_CHANNELS, ModelConfig
from nanochat.model.architecture import (
    ARCHITECTURES,
    VALUE_GATE_CHANNELS,
    has_value_embedding,
    vocabulary_rows,
)

SHAPE = {
    "sequence_len": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
}
"""Field of ours -> of `config.json`."""

Sizes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TransformersForm:
    """One architecture as transformers has it."""

    architecture: Literal["classic", "2026"]
    model_type: str
    causal_class: str
    fixed: Callable[[int], dict[str, Any]]
    """Settings that the architecture leaves no choice about, by the width."""
    written: Callable[[], dict[str, Any]]
    """Settings that a folder may have otherwise and is read all the same."""
    optional: Mapping[str, str]  # as SHAPE, for what may be absent
    their_name: Callable[[str], str]  # of a tensor; one that is unknown is left as it is, to be refused
    our_name: Callable[[str], str]
    sizes: Callable[[ModelConfig], Sizes]
    """What the class holds of a model: it would drop or invent all else."""
    code: Mapping[str, str] = field(default_factory=dict)  # automatic class -> module.class in the folder


_CLASSIC_NAMES = {"transformer.wte": "model.embed_tokens", "lm_head": "lm_head"}
_CLASSIC_PARTS = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _to_classic(name: str) -> str:
    return _renamed(name, _CLASSIC_NAMES, "transformer.h.", "model.layers.", _CLASSIC_PARTS)


def _from_classic(name: str) -> str:
    names, parts = ({new: old for old, new in of.items()} for of in (_CLASSIC_NAMES, _CLASSIC_PARTS))
    return _renamed(name, names, "model.layers.", "transformer.h.", parts)


def _renamed(name: str, whole: Mapping[str, str], old: str, new: str, parts: Mapping[str, str]) -> str:
    stem = name.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    layer, _, rest = stem.removeprefix(old).partition(".")
    return f"{new}{layer}.{parts[rest]}.weight" if stem.startswith(old) and rest in parts else name


def _classic_settings(n_embd: int) -> dict[str, Any]:
    from nanochat.model.gpt import LOGIT_CAP

    return {
        "model_type": "nanochat",
        "intermediate_size": 4 * n_embd,
        "hidden_act": "relu2",
        "final_logit_softcapping": LOGIT_CAP,
        "rope_parameters": {"rope_type": "default", "rope_theta": ARCHITECTURES["classic"].rope_base},
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


def _norm_eps() -> dict[str, Any]:
    from nanochat.model.attention import RMS_EPS

    return {"rms_norm_eps": RMS_EPS}


def _classic_sizes(config: ModelConfig) -> Sizes:
    rows, width = config.vocab_size, config.n_embd
    sizes = _layer_sizes(config, tuple(_CLASSIC_PARTS.values()), "model.layers.")
    return {"model.embed_tokens.weight": (rows, width), "lm_head.weight": (rows, width), **sizes}


def _layer_sizes(config: ModelConfig, names: tuple[str, ...], prefix: str) -> Sizes:
    """Return the sizes of queries, keys, values, output and both MLP weights of each layer."""
    width, narrow = config.n_embd, config.n_kv_head * (config.n_embd // config.n_head)
    sizes = [(width, width), (narrow, width), (narrow, width), (width, width)]
    sizes += [(4 * width, width), (width, 4 * width)]
    return {
        f"{prefix}{layer}.{name}.weight": size
        for layer in range(config.n_layer)
        for name, size in zip(names, sizes, strict=True)
    }


def _to_july(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name.removeprefix('transformer.')}"


def _from_july(name: str) -> str:
    rest = name.removeprefix("model.")
    return f"transformer.{rest}" if rest.startswith(("wte.", "h.")) else rest


def _july_sizes(config: ModelConfig) -> Sizes:
    rows, width, layers = vocabulary_rows(config), config.n_embd, range(config.n_layer)
    mixing = [layer for layer in layers if has_value_embedding(config, layer)]
    narrow = config.n_kv_head * (width // config.n_head)
    gate = (config.n_kv_head, VALUE_GATE_CHANNELS)
    return {
        "model.wte.weight": (rows, width),
        "lm_head.weight": (rows, width),
        "model.resid_lambdas": (config.n_layer,),
        "model.x0_lambdas": (config.n_layer,),
        "model.smear_gate.weight": (1, SMEAR_CHANNELS),
        "model.smear_lambda": (1,),
        "model.backout_lambda": (1,),
        **{f"model.value_embeds.{layer}.weight": (rows, narrow) for layer in mixing},
        **{f"model.h.{layer}.attn.ve_gate.weight": gate for layer in mixing},
        **_layer_sizes(config, tuple(_CLASSIC_PARTS), "model.h."),
    }


_MODELING = "modeling_nanochat2026.Nanochat2026"
FORMS = {
    "classic": TransformersForm(
        architecture="classic",
        model_type="nanochat",
        causal_class="NanoChatForCausalLM",
        fixed=_classic_settings,
        written=_norm_eps,
        optional={
            "document_token": "document_token"
        },  # ours alone: they keep it and do not ask what it means
        their_name=_to_classic,
        our_name=_from_classic,
        sizes=_classic_sizes,
    ),
    "2026": TransformersForm(
        architecture="2026",
        model_type="nanochat_2026",
        causal_class="Nanochat2026ForCausalLM",
        fixed=lambda n_embd: {"model_type": "nanochat_2026", "tie_word_embeddings": False},
        written=dict,
        optional={"document_token": "document_token_id", "window_pattern": "window_pattern"},
        their_name=_to_july,
        our_name=_from_july,
        sizes=_july_sizes,
        code={
            "AutoConfig": "configuration_nanochat2026.Nanochat2026Config",
            "AutoModel": f"{_MODELING}Model",
            "AutoModelForCausalLM": f"{_MODELING}ForCausalLM",
        },
    ),
}


def _upstream_sizes(config: ModelConfig) -> Sizes:
    return {_from_classic(name): size for name, size in _classic_sizes(config).items()}


MLX_FORM = replace(FORMS["classic"], their_name=str, our_name=str, sizes=_upstream_sizes)
"""What mlx-lm reads of a classic model: what transformers does, under upstream's names."""
