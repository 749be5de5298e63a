"""Stock llama.cpp, as it is in the wheel `xllamacpp`: its C functions for tokens and logits, and its server.

What a user of llama.cpp runs is the same code. Nothing here knows how a file is written.
"""

from __future__ import annotations

import ctypes
import json
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


class _ContextParams(ctypes.Structure):
    # Its beginning; what follows differs between versions and stays as llama.cpp sets it.
    _fields_ = [(name, ctypes.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max")] + [
        ("rest", ctypes.c_ubyte * 496)
    ]


# In `rest`: whether attention is flash attention, which computes in float16 (-1: as llama.cpp sees fit), and
# the types of keys and values (1: float16); zeros are no, and float32.
_EXACT = (slice(36, 40), b"\xff" * 4), (slice(88, 96), b"\1\0\0\0" * 2)


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


# llama.cpp keeps one for all models and calls it as long as any is there: it must outlive them.
_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def _library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("xllamacpp, which brings llama.cpp, is not installed: uv sync")
    lib = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
    lib.llama_model_default_params.restype = _ModelParams
    lib.llama_context_default_params.restype = _ContextParams
    lib.llama_batch_init.restype = _Batch
    for name in ("model_load_from_file", "init_from_model", "get_memory", "model_get_vocab"):
        getattr(lib, f"llama_{name}").restype = ctypes.c_void_p
    lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    lib.llama_vocab_is_eog.restype = ctypes.c_bool
    return lib


class LlamaCpp:
    """A model in llama.cpp, with rows of text that are read and written together."""

    def __init__(
        self, path: Path, *, rows: int = 1, context: int, threads: int = 1, exact: bool = False
    ) -> None:
        """Load a file with room for `rows` texts of `context` tokens each.

        `exact` computes with keys and values in float32, where llama.cpp has float16.
        """
        self._lib = lib = _library()
        lib.llama_log_set(_QUIET, None)
        lib.llama_backend_init()
        self._model = ctypes.c_void_p(
            lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = rows * context, 2048, 512, rows
        if exact:
            for place, usual in _EXACT:
                if params.rest[place] != list(usual):
                    raise RuntimeError("this llama.cpp has the types of keys and values elsewhere")
                params.rest[place] = bytes(len(usual))
        self._context = ctypes.c_void_p(lib.llama_init_from_model(self._model, params))
        lib.llama_set_n_threads(self._context, threads, threads)
        self._batch = lib.llama_batch_init(rows * context, 0, 1)
        self._vocabulary = ctypes.c_void_p(lib.llama_model_get_vocab(self._model))
        self._tokens = lib.llama_vocab_n_tokens(self._vocabulary)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text, without `bos`; `special`: texts of special tokens are these tokens."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 1))()
        given = ctypes.c_char_p(raw), len(raw), ids, len(ids)
        flags = ctypes.c_bool(False), ctypes.c_bool(special)
        count = self._lib.llama_tokenize(self._vocabulary, *given, *flags)
        if count < 0:
            raise RuntimeError(f"llama_tokenize found {-count} tokens in {len(raw)} bytes")
        return ids[:count]

    def ends(self, token: int) -> bool:
        """Return whether an answer ends at a token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))

    def clear(self) -> None:
        """Forget all rows."""
        memory = ctypes.c_void_p(self._lib.llama_get_memory(self._context))
        self._lib.llama_memory_clear(memory, ctypes.c_bool(True))

    def feed(self, texts: Sequence[Sequence[int]], position: int) -> list[int]:
        """Read texts of the same length into all rows, from a position on; return the likeliest tokens."""
        self._decode(texts, position, every=False)
        length = len(texts[0])
        return [int(self._logits((row + 1) * length - 1).argmax()) for row in range(len(texts))]

    def logits(self, text: Sequence[int]) -> np.ndarray[Any, Any]:
        """Return the logits (T, V) after each token of one text."""
        self.clear()
        self._decode([text], 0, every=True)
        return np.stack([self._logits(place) for place in range(len(text))])

    def _decode(self, texts: Sequence[Sequence[int]], position: int, *, every: bool) -> None:
        batch, n = self._batch, 0
        for row, text in enumerate(texts):
            for i, token in enumerate(text):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, position + i, 1
                batch.seq_id[n][0], batch.logits[n] = row, every or i == len(text) - 1
                n += 1
        batch.n_tokens = n
        if failed := self._lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {failed}")

    def _logits(self, place: int) -> np.ndarray[Any, Any]:
        found = self._lib.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(found, (self._tokens,)).copy()

    def close(self) -> None:
        """Give its memory back."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)


class LlamaServer:
    """llama.cpp's own server with a model, at a port of this machine."""

    def __init__(self, path: Path) -> None:
        """Load a file."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.port, params.n_parallel = str(path), 0, 1
        params.verbosity, params.cpuparams.n_threads = -1, 1
        self._server = xllamacpp.Server(params)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Post to the server; raises HTTPError for what it refuses."""
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
