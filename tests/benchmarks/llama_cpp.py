"""Runs a classic model in stock llama.cpp, as the baseline of `bench_chat.py`.

A classic model is what llama.cpp calls Apertus, but for the cap of the logits, which changes no greedy token:
rows of the embedding are normed beforehand, the halves of query and key heads swapped (its rotation runs the
other way), learned norms are ones, and its activation xIELU becomes the squared relu. The library comes in
the wheel `xllamacpp`, whose C functions are called directly; `gguf` writes the file. Neither is installed
with this project.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nanochat.model.gpt import GPT

Type = Literal["F32", "Q8_0", "Q4_K"]
_SUPER, _SUB = 256, 32  # weights of a Q4_K block, and of each of its scales


def write_gguf(model: GPT, path: Path, kind: Type) -> None:
    """Write a classic model as a file that llama.cpp reads; its words are only numbers."""
    gguf = importlib.import_module("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "apertus")
    writer.add_context_length(config.sequence_len)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(config.n_embd // config.n_head)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    layers = config.n_layer
    writer.add_xielu_alpha_p([math.log(math.e - 1)] * layers)
    writer.add_xielu_alpha_n([-10_000.0] * layers)
    writer.add_xielu_beta([0.0] * layers)
    writer.add_xielu_eps([0.0] * layers)
    writer.add_tokenizer_model("none")
    for name, weight in _tensors(model):
        data, of = _encoded(gguf, weight, kind if weight.ndim == 2 else "F32")
        writer.add_tensor(name, data, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(model: GPT):
    state, config = model.state_dict(), model.config
    width, head = config.n_embd, config.n_embd // config.n_head
    embedding = state["transformer.wte.weight"]
    yield "token_embd.weight", torch.nn.functional.rms_norm(embedding, (width,), eps=1e-6)
    yield "output_norm.weight", torch.ones(width)
    yield "output.weight", state["lm_head.weight"]
    for layer in range(config.n_layer):
        theirs, ours = f"blk.{layer}.", f"transformer.h.{layer}."
        for norm, size in (
            ("attn_norm", width),
            ("ffn_norm", width),
            ("attn_q_norm", head),
            ("attn_k_norm", head),
        ):
            yield f"{theirs}{norm}.weight", torch.ones(size)
        for name in ("q", "k"):
            yield f"{theirs}attn_{name}.weight", _halves_swapped(state[f"{ours}attn.c_{name}.weight"], head)
        yield f"{theirs}attn_v.weight", state[f"{ours}attn.c_v.weight"]
        yield f"{theirs}attn_output.weight", state[f"{ours}attn.c_proj.weight"]
        yield f"{theirs}ffn_up.weight", state[f"{ours}mlp.c_fc.weight"]
        yield f"{theirs}ffn_down.weight", state[f"{ours}mlp.c_proj.weight"]


def _halves_swapped(weight: torch.Tensor, head: int) -> torch.Tensor:
    return weight.view(-1, 2, head // 2, weight.size(1)).flip(1).reshape(weight.shape)


def _encoded(gguf: Any, weight: torch.Tensor, kind: Type) -> tuple[np.ndarray, Any]:
    array, of = weight.float().contiguous().numpy(), gguf.GGMLQuantizationType[kind]
    return (_q4_k(array) if kind == "Q4_K" else gguf.quants.quantize(array, of)), of


def _q4_k(array: np.ndarray) -> np.ndarray:
    """Return rows of weights in llama.cpp's blocks: 256 of 4 bits, with 8 scales and 8 minima of 6 bits."""
    parts = array.reshape(-1, _SUPER // _SUB, _SUB)
    low = np.minimum(parts.min(-1), 0)
    steps = (parts.max(-1) - low) / 15
    d, dmin = (np.maximum(of.max(-1, keepdims=True), 1e-8) / 63 for of in (steps, -low))
    d, dmin = d.astype(np.float16), dmin.astype(np.float16)
    sc = np.clip(np.rint(steps / d), 0, 63).astype(np.uint8)
    m = np.clip(np.rint(-low / dmin), 0, 63).astype(np.uint8)
    step, offset = (d * sc.astype(np.float32))[..., None], (dmin * m.astype(np.float32))[..., None]
    q = np.clip(np.rint((parts + offset) / np.maximum(step, 1e-12)), 0, 15).astype(np.uint8)
    packed = (q[:, 0::2] | q[:, 1::2] << 4).reshape(len(q), -1)  # 32 low nibbles share bytes with the next 32
    first, last = sc[:, :4] | (sc[:, 4:] >> 4) << 6, m[:, :4] | (m[:, 4:] >> 4) << 6
    scales = np.concatenate([first, last, (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4], axis=-1)
    blocks = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), scales, packed], axis=-1)
    return blocks.reshape(len(array), -1)


class _ContextParams(ctypes.Structure):
    # Its beginning; what follows differs between versions and stays as llama.cpp sets it.
    _fields_ = [(name, ctypes.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max")] + [
        ("rest", ctypes.c_ubyte * 496)
    ]


class _ModelParams(ctypes.Structure):
    _fields_ = [("all", ctypes.c_ubyte * 256)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class LlamaCpp:
    """A model in llama.cpp, whose rows are read and written as `bench_chat.py` does with ours."""

    def __init__(self, path: Path, *, rows: int, context: int, threads: int) -> None:
        """Load a file with room for `rows` texts of `context` tokens each."""
        package = Path(importlib.import_module("xllamacpp").__file__ or "").parent
        self._lib = lib = ctypes.CDLL(str(next(package.glob("*.so"))))
        lib.llama_model_default_params.restype = _ModelParams
        lib.llama_context_default_params.restype = _ContextParams
        lib.llama_batch_init.restype = _Batch
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self._quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        lib.llama_log_set(self._quiet, None)
        lib.llama_backend_init()
        self._model = ctypes.c_void_p(
            lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = rows * context, 2048, 512, rows
        self._context = ctypes.c_void_p(lib.llama_init_from_model(self._model, params))
        lib.llama_set_n_threads(self._context, threads, threads)
        self._batch = lib.llama_batch_init(rows * context, 0, 1)
        self._vocab = lib.llama_vocab_n_tokens(ctypes.c_void_p(self._vocabulary()))

    def _vocabulary(self) -> int:
        self._lib.llama_model_get_vocab.restype = ctypes.c_void_p
        return self._lib.llama_model_get_vocab(self._model)

    def clear(self) -> None:
        """Forget all rows."""
        memory = ctypes.c_void_p(self._lib.llama_get_memory(self._context))
        self._lib.llama_memory_clear(memory, ctypes.c_bool(True))

    def feed(self, texts: Sequence[Sequence[int]], position: int) -> list[int]:
        """Read texts of the same length into all rows, from a position on; return the likeliest tokens."""
        batch, n, lasts = self._batch, 0, []
        for row, text in enumerate(texts):
            for i, token in enumerate(text):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, position + i, 1
                batch.seq_id[n][0], batch.logits[n] = row, i == len(text) - 1
                n += 1
            lasts.append(n - 1)
        batch.n_tokens = n
        if failed := self._lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {failed}")
        return [int(self._logits(i).argmax()) for i in lasts]

    def _logits(self, place: int) -> np.ndarray:
        found = self._lib.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(found, (self._vocab,))

    def close(self) -> None:
        """Give its memory back."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)
