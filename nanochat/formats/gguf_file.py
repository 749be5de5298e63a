"""One GGUF file for stock llama.cpp, and so for Ollama and LM Studio, with a Modelfile for Ollama beside it.

A classic model is what llama.cpp calls Apertus, but for the cap of the logits, which that does not have: the
likeliest token is the same, drawn ones are a little surer. llama.cpp has no calculator, so that a model which
uses one makes up the result. Such a file is not read back: most types have lost some of the weights.
"""

from __future__ import annotations

import math
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.config import Sampling
from nanochat.errors import ConfigError
from nanochat.formats.gguf_tokens import SPLIT_NOTE, add_tokens
from nanochat.formats.gguf_weights import WeightType, library_type, tensors_of
from nanochat.model.architecture import ARCHITECTURES
from nanochat.writing import whole_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from nanochat.config import ModelConfig
    from nanochat.formats.published import Published

DEFAULT_TYPE: WeightType = "q8_0"
"""Half of bfloat16's bytes to read for each token, for a loss that perplexity hardly shows."""
_ARCHITECTURE = "apertus"
_FILE_TYPES = {
    "f32": "ALL_F32",
    "bf16": "MOSTLY_BF16",
    "f16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
    "q4_K": "MOSTLY_Q4_K_S",
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a file says of where its model comes from."""

    name: str = "nanochat"
    license: str | None = None
    source: str = ""
    """A record of the store, or the files that were read."""
    digest: str = ""


def write_gguf_folder(out: Path, published: Published, kind: WeightType, origin: Origin) -> None:
    """Write the file and the Modelfile; raises as `write_gguf` does."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", origin.name).strip("-.") or "model"
    path = out / f"{name}-{kind.upper()}.gguf"
    write_gguf(path, published, kind, origin)
    text = _modelfile(path.name, published.model.config)
    (out / "Modelfile").write_text(text, encoding="utf-8")


def write_gguf(path: Path, published: Published, kind: WeightType, origin: Origin | None = None) -> None:
    """Write the file whole or not at all; equal models give equal bytes.

    Raises ConfigError for an architecture or a split pattern that llama.cpp does not have, DataError for
    tokens or weights that the file cannot hold.
    """
    config = published.model.config
    if config.architecture != "classic":
        raise ConfigError(
            f"the model is of architecture {config.architecture!r}, which llama.cpp does not have",
            hint="`nanochat chat` and `nanochat serve` run it, and generate_cpu.py beside --format nanochat",
        )
    from gguf import GGUFWriter, LlamaFileType

    with whole_file(path) as part, closing(GGUFWriter(part, _ARCHITECTURE)) as writer:
        writer.add_file_type(LlamaFileType[_FILE_TYPES[kind]])
        _add_origin(writer, published, origin or Origin())
        _add_shape(writer, config)
        add_tokens(writer, published.tokenizer)
        _write_tensors(writer, published, kind)


def _add_origin(writer: GGUFWriter, published: Published, origin: Origin) -> None:
    from gguf import GGUFType

    from nanochat.model.gpt import LOGIT_CAP

    writer.add_type(GGUFType.MODEL)
    writer.add_name(origin.name)
    if origin.license:
        writer.add_license(origin.license)
    writer.add_description(
        f"A nanochat model. Its logits are capped at {LOGIT_CAP:g} (cap * tanh(logit / cap)), which this"
        f" architecture cannot say: the likeliest token is the same. {SPLIT_NOTE}"
    )
    writer.add_string("nanochat.source", origin.source)
    writer.add_string("nanochat.digest", origin.digest)
    writer.add_uint32("nanochat.step", published.step)
    writer.add_float32("nanochat.logit_cap", LOGIT_CAP)
    # As `nanochat chat` draws: llama.cpp's own defaults are others.
    writer.add_sampling_temp(Sampling.temperature)
    writer.add_sampling_top_k(Sampling.top_k or 0)
    writer.add_sampling_top_p(Sampling.top_p)
    writer.add_sampling_min_p(Sampling.min_p)


def _add_shape(writer: GGUFWriter, config: ModelConfig) -> None:
    from nanochat.model.attention import RMS_EPS

    layers = config.n_layer
    writer.add_context_length(config.sequence_len)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_layer_norm_rms_eps(RMS_EPS)
    writer.add_rope_dimension_count(config.n_embd // config.n_head)
    writer.add_rope_freq_base(ARCHITECTURES["classic"].rope_base)
    writer.add_vocab_size(config.vocab_size)
    # xIELU with ln(1 + exp(alpha_p)) = 1, beta = 0 and nothing below zero is the squared relu.
    writer.add_xielu_alpha_p([math.log(math.e - 1)] * layers)
    writer.add_xielu_alpha_n([-10_000.0] * layers)
    writer.add_xielu_beta([0.0] * layers)
    writer.add_xielu_eps([0.0] * layers)


def _write_tensors(writer: GGUFWriter, published: Published, kind: WeightType) -> None:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGML_QUANT_VERSION

    writer.add_quantization_version(GGML_QUANT_VERSION)
    tensors = list(tensors_of(published.model, kind))
    for tensor in tensors:
        library = library_type(tensor.kind)
        numbers, size = GGML_QUANT_SIZES[library]
        count = math.prod(tensor.shape) // numbers * size
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), count, raw_dtype=library)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.encoded())


def _modelfile(name: str, config: ModelConfig) -> str:
    """Return what `ollama create` reads; Ollama puts `bos` before the prompt itself."""
    return f'''# ollama create NAME -f Modelfile
FROM ./{name}
TEMPLATE """<|user_start|>{{{{ if .System }}}}{{{{ .System }}}}

{{{{ end }}}}{{{{ .Prompt }}}}<|user_end|><|assistant_start|>{{{{ .Response }}}}<|assistant_end|>"""
PARAMETER num_ctx {config.sequence_len}
PARAMETER stop <|assistant_end|>
PARAMETER temperature {Sampling.temperature}
PARAMETER top_k {Sampling.top_k}
PARAMETER top_p {Sampling.top_p}
PARAMETER min_p {Sampling.min_p}
'''
