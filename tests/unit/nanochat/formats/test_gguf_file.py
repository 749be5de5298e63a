"""GGUF files without llama.cpp: what is in them, and what is refused and leaves nothing behind.

What llama.cpp makes of them: `tests/parity/nanochat/formats/test_llama_cpp.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from nanochat.errors import ConfigError, DataError
from nanochat.formats.gguf_file import Origin, write_gguf, write_gguf_folder
from nanochat.formats.published import Published
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

ORIGIN = Origin(name="My model: 2", license="mit", source="publish/0123", digest="89ab")


@pytest.fixture
def published(tiny_model, byte_tokenizer) -> Published:
    return Published(model=tiny_model, tokenizer=byte_tokenizer, step=7)


def changed(model: GPT, **fields) -> GPT:
    """Return a model of another shape, with drawn weights."""
    other = GPT(type(model.config)(**{**model.config.model_dump(), **fields}))
    generator = torch.Generator().manual_seed(0)
    for weight in other.parameters():
        weight.data = torch.empty(weight.shape).normal_(generator=generator)
    return other


def field(reader: GGUFReader, name: str):
    return reader.fields[name].contents()


def test_the_file_says_what_it_is_and_where_it_comes_from(published, tmp_path):
    write_gguf_folder(tmp_path, published, "bf16", ORIGIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Modelfile", "My-model-2-BF16.gguf"]
    reader = GGUFReader(tmp_path / "My-model-2-BF16.gguf")
    said = {
        "general.architecture": "apertus",
        "general.name": "My model: 2",
        "general.license": "mit",
        "nanochat.source": "publish/0123",
        "nanochat.digest": "89ab",
        "nanochat.step": 7,
        "apertus.context_length": 16,
        "tokenizer.ggml.bos_token_id": published.tokenizer.special("bos"),
        "tokenizer.ggml.eos_token_id": published.tokenizer.special("assistant_end"),
    }
    assert {name: field(reader, name) for name in said} == said
    about = field(reader, "general.description")
    assert "capped at 15" in about and "digits by two" in about
    assert "<|assistant_start|>" in field(reader, "tokenizer.chat_template")


def test_the_modelfile_names_the_file_the_context_and_where_an_answer_ends(published, tmp_path):
    write_gguf_folder(tmp_path, published, "f32", Origin(name="../../x"))
    text = (tmp_path / "Modelfile").read_text(encoding="utf-8")
    assert "FROM ./x-F32.gguf\n" in text and (tmp_path / "x-F32.gguf").is_file()
    assert "PARAMETER num_ctx 16\n" in text and "PARAMETER stop <|assistant_end|>\n" in text


def test_writing_again_gives_the_same_bytes(published, tmp_path):
    for name in ("a", "b"):
        write_gguf(tmp_path / name, published, "q8_0")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_that_are_no_whole_blocks_are_kept_in_the_next_larger_type(tiny_model, byte_tokenizer, tmp_path):
    # The last matrix of a layer has rows of four times the width.
    widths = {16: {"BF16", "Q8_0"}, 32: {"Q8_0"}, 64: {"Q8_0", "Q4_K"}, 256: {"Q4_K"}}
    head = "output.weight"  # has eight bits where others have four
    for width, expected in widths.items():
        model = changed(tiny_model, n_embd=width)
        write_gguf(tmp_path / "model", Published(model=model, tokenizer=byte_tokenizer), "q4_K")
        tensors = GGUFReader(tmp_path / "model").tensors
        matrices = {t.name: t.tensor_type.name for t in tensors if len(t.shape) == 2}
        assert matrices.pop(head) == ("BF16" if width == 16 else "Q8_0")
        assert set(matrices.values()) == expected, width
        assert {t.tensor_type.name for t in tensors if len(t.shape) == 1} == {"F32"}


def test_weights_of_few_bits_are_the_nearest_steps(tiny_model, byte_tokenizer, tmp_path):
    model = changed(tiny_model, n_embd=256)
    values = model.transformer.h[0].attn.c_v.weight  # (128, 256)
    values.data[:32] = 0
    values.data[32:64] = 0.25
    write_gguf(tmp_path / "model", Published(model=model, tokenizer=byte_tokenizer), "q4_K")
    (written,) = [t for t in GGUFReader(tmp_path / "model").tensors if t.name == "blk.0.attn_v.weight"]
    back, parts = dequantize(written.data, written.tensor_type), values.detach().numpy().reshape(128, 8, 32)
    assert not back[:32].any() and np.allclose(back[32:64], 0.25, rtol=0.01)
    spread = parts.max(-1) - np.minimum(parts.min(-1), 0)
    # Half a step of fifteen, and what scale and minimum lose in their six bits.
    assert (np.abs(back.reshape(parts.shape) - parts).max(-1) <= spread.max(-1, keepdims=True) / 15).all()


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("f32", float("nan"), "largest weight of output.weight is nan"),
        ("q8_0", float("inf"), "largest weight of output.weight is inf"),
        ("f16", 70_000.0, "is 70000; f16 holds less than 65520"),
    ],
    ids=str,
)
def test_weights_that_the_type_cannot_hold_are_refused_by_name(kind, value, reason, published, tmp_path):
    model = changed(published.model)
    model.lm_head.weight.data[3, 2] = value
    with pytest.raises(DataError, match=reason):
        write_gguf(tmp_path / "model", Published(model=model, tokenizer=published.tokenizer), kind)
    assert not list(tmp_path.iterdir())


def test_the_architecture_of_2026_is_refused_with_what_runs_it(published, tmp_path):
    model = changed(published.model, architecture="2026", window_pattern="SL", n_embd=32)
    with pytest.raises(ConfigError, match=r"'2026', which llama.cpp does not have") as caught:
        write_gguf_folder(tmp_path, Published(model=model, tokenizer=published.tokenizer), "f32", ORIGIN)
    assert "nanochat serve" in caught.value.hint and "generate_cpu.py" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cuts_text_otherwise_is_refused(published, tmp_path):
    tokenizer = Tokenizer(published.tokenizer.ranks, published.tokenizer.special_tokens, r"\s+|\S+")
    with pytest.raises(ConfigError, match=r"split pattern is .* not nanochat's"):
        write_gguf(tmp_path / "model", Published(model=published.model, tokenizer=tokenizer), "f32")
    assert not list(tmp_path.iterdir())


def test_a_special_token_that_is_an_ordinary_one_as_well_is_refused(published, tmp_path):
    ranks = {**published.tokenizer.ranks, b"<|bos|>": 265}
    tokenizer = Tokenizer(ranks, published.tokenizer.special_tokens)
    with pytest.raises(DataError, match=r"'<\|bos\|>' is both a special token and an ordinary one"):
        write_gguf(tmp_path / "model", Published(model=published.model, tokenizer=tokenizer), "f32")
    assert not list(tmp_path.iterdir())
