"""Published folders are read back as written, upstream's with its own numbers, hostile ones never."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.errors import ConfigError, DataError
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.nanochat_folder import to_cache_layout, write_nanochat_folder
from nanochat.formats.published import Choice
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer


def read(folder, **choice):
    return read_published(find_published(folder, Choice(**choice)))


def same_weights(a: GPT, b: GPT) -> bool:
    return all(torch.equal(a.state_dict()[name], weight) for name, weight in b.state_dict().items())


def test_a_folder_comes_back_as_it_was_written(written, tiny_model):
    found = read(written)
    assert found.model.config == tiny_model.config and same_weights(found.model, tiny_model)
    assert found.tokenizer.decode(found.tokenizer.encode("Grüße, 123")) == "Grüße, 123"
    assert (found.step, found.source, found.results) == (3, "sft", {"val_loss": 1.5})


def test_reading_and_writing_again_gives_the_same_bytes(written, tmp_path):
    found = read(written)
    again = tmp_path / "again"
    again.mkdir()
    write_nanochat_folder(
        again,
        state=found.model.state_dict(),
        config=found.model.config,
        tokenizer=found.tokenizer,
        step=found.step,
        results=found.results,
    )
    names = sorted(path.name for path in written.iterdir())
    assert names == ["meta_000003.json", "model_000003.pt", "token_bytes.pt", "tokenizer.pkl"]
    assert all((again / name).read_bytes() == (written / name).read_bytes() for name in names)


def test_compiled_names_and_bfloat16_weights_are_read(written, tiny_model):
    state = {f"_orig_mod.{name}": w.bfloat16() for name, w in tiny_model.state_dict().items()}
    torch.save(state, written / "model_000003.pt")
    model = read(written).model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    name = "transformer.wte.weight"
    assert torch.equal(model.state_dict()[name], tiny_model.state_dict()[name].bfloat16().float())


def test_upstreams_cache_layout_is_read_with_its_logits(shared_golden):
    golden = shared_golden / "nanochat-2025-10"
    found = read(golden)
    expected = torch.load(golden / "golden_logits.pt", weights_only=True)["logits"]
    prompts = json.loads((golden / "golden.json").read_text(encoding="utf-8"))["prompt_ids"]
    assert (found.step, found.source) == (650, "sft")
    for ids, logits in zip(prompts, expected, strict=True):
        with torch.inference_mode():
            assert torch.allclose(found.model(torch.tensor([ids]))[0], logits, atol=1e-4)


def test_the_architecture_of_2026_is_read_and_written(shared_golden, tmp_path):
    golden = shared_golden / "nanochat-2026-07"
    shutil.copytree(golden / "d4", tmp_path / "a/d4")
    tokenizer = shared_golden / "nanochat-2025-10/tokenizer"
    shutil.copytree(tokenizer, tmp_path / "a/tokenizer")
    found = read(tmp_path / "a")
    assert found.model.config.architecture == "2026" and found.model.config.window_pattern == "SSSL"
    expected = torch.load(golden / "golden_logits.pt", weights_only=True)["logits_last_48"]
    prompts = json.loads((golden / "golden.json").read_text(encoding="utf-8"))["prompt_ids"]
    for ids, logits in zip(prompts, expected, strict=True):
        with torch.inference_mode():
            assert torch.allclose(found.model(torch.tensor([ids]))[0, -48:], logits, atol=1e-4)
    out = tmp_path / "b"
    out.mkdir()
    state, config = found.model.state_dict(), found.model.config
    write_nanochat_folder(out, state=state, config=config, tokenizer=found.tokenizer, step=8, results={})
    meta = json.loads((out / "meta_000008.json").read_text())
    assert meta == json.loads((golden / "d4/meta_000008.json").read_text())
    assert same_weights(read(out).model, found.model)
    lengths = torch.load(out / "token_bytes.pt", weights_only=True)
    assert lengths.tolist() == found.tokenizer.token_bytes().tolist()  # raw, as upstream counts by then


# Which of several checkpoints


@pytest.fixture
def several(written, tmp_path):
    """Upstream's base directory with trainings, models and steps; all weights are the same."""
    base = tmp_path / "base"
    shutil.copytree(written, base)
    to_cache_layout(base, "sft", "d2")
    for place, step in (
        ("chatsft_checkpoints/d10", 3),
        ("chatsft_checkpoints/d10", 12),
        ("base_checkpoints/d30", 7),
    ):
        (base / place).mkdir(parents=True, exist_ok=True)
        for kind in ("model_{:06d}.pt", "meta_{:06d}.json"):
            shutil.copy(base / "chatsft_checkpoints/d2" / kind.format(3), base / place / kind.format(step))
    return base


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, ("sft", "d10", 12)),
        ({"step": 3}, ("sft", "d10", 3)),
        ({"tag": "d2"}, ("sft", "d2", 3)),
        ({"source": "base"}, ("base", "d30", 7)),
        ({"tag": "d30"}, ("base", "d30", 7)),
    ],
    ids=str,
)
def test_the_newest_step_of_the_largest_finished_model_is_taken_unless_chosen(several, choice, expected):
    found = find_published(several, Choice(**choice))
    assert (found.source, found.tag, found.step) == expected
    assert found.others == 3
    assert found.weights[0].name == f"model_{expected[2]:06d}.pt"


def test_folders_of_one_training_and_of_one_model_find_the_tokenizer_above(several):
    assert find_published(several / "chatsft_checkpoints").tag == "d10"
    inner = find_published(several / "chatsft_checkpoints/d2")
    assert (inner.source, inner.tag, inner.step) == ("sft", "d2", 3)
    assert inner.tokenizer == several / "tokenizer/tokenizer.pkl"


@pytest.mark.parametrize(
    ("choice", "signs"),
    [
        ({"tag": "d32"}, "no checkpoint with tag d32"),
        ({"tag": "../../d10"}, "no checkpoint with tag ../../d10"),
        ({"source": "mid", "step": 3}, "no checkpoint with source mid, step 3"),
        ({"source": "chat"}, "source is 'chat'"),
    ],
    ids=str,
)
def test_a_choice_that_is_not_there_is_told_with_what_there_is(several, choice, signs):
    with pytest.raises(ConfigError, match=signs) as caught:
        find_published(several, Choice(**choice))
    assert "sft d10 step 12" in caught.value.hint or "sft, rl, mid, base" in caught.value.hint


# Files that are hostile, damaged or another model's


def test_a_hostile_tokenizer_is_refused_and_runs_nothing(written, payload):
    for content in (payload, {"mergeable_ranks": [payload]}, [payload]):
        (written / "tokenizer.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"tokenizer\.pkl: the pickle asks for"):
            read(written)


def test_hostile_weights_are_refused_and_run_nothing(written, payload):
    torch.save({"lm_head.weight": payload}, written / "model_000003.pt")
    with pytest.raises(DataError, match=r"model_000003\.pt: the pickle asks for"):
        read(written)


def change_meta(written, **fields):
    path = written / "meta_000003.json"
    meta = json.loads(path.read_text())
    meta["model_config"].update(fields)
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n_layer": 3}, "has 2 layers, meta_000003.json says 3"),
        ({"n_layer": 10**9}, "n_layer is 1,000,000,000; at most 16,777,216"),
        ({"n_layer": 10**7}, "has 2 layers, meta_000003.json says 10000000"),
        ({"n_embd": 2**20}, "describes .* parameters, model_000003.pt holds"),
        ({"n_embd": 2**41, "n_head": 2**40, "n_kv_head": 7}, "n_head is|n_embd is"),
        ({"vocab_size": 10**7}, "describes .* parameters, model_000003.pt holds"),
        ({"sequence_len": 10**9}, "sequence_len is 1,000,000,000; at most"),
        ({"sequence_len": 10**6}, "sequence_len is 1,000,000; at most 131,072"),
        ({"n_embd": 32}, "describes .* parameters, model_000003.pt holds|has shape"),
        ({"vocab_size": 266}, r"has shape \(265, 16\), expected \(266, 16\)"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_layer": "2"}, "n_layer is 2: .* integer"),
        ({"n_layer": True}, "n_layer is True"),
        ({"n_embd": 1e300}, "n_embd is 1e\\+300"),
        ({"__class__": "os.system"}, "__class__ is os.system"),
        ({"window_pattern": "SXL"}, "window_pattern"),
        ({"window_pattern": "L", "n_embd": 32}, "architecture|parameters"),
    ],
    ids=str,
)
def test_a_description_that_cannot_be_true_is_refused_by_field_and_file(written, fields, reason):
    change_meta(written, **fields)
    with pytest.raises(DataError, match=reason) as caught:
        read(written)
    assert "_000003" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"[1]", "holds a list, not an object"),
        (b"{}", "has no model_config"),
        (b'{"model_config": 3}', "has no model_config"),
        (b"[" * 200_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b" " * (17 * 2**20), "at most 16,777,216"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_description_that_is_none_is_refused_by_name(written, content, reason):
    (written / "meta_000003.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"meta_000003\.json.* {reason}"):
        read(written)


def test_missing_tensors_wrong_shapes_and_strangers_are_named(written, tiny_model):
    state = tiny_model.state_dict()
    state["lm_head.weight"] = torch.ones(265, 15)
    state["surprise"] = state.pop("transformer.h.1.attn.c_q.weight")
    torch.save(dict(state), written / "model_000003.pt")
    with pytest.raises(DataError, match=r"model_000003\.pt does not fit") as caught:
        read(written)
    for sign in ("c_q.weight is missing", "surprise is not part", "lm_head.weight has shape (265, 15)"):
        assert sign in str(caught.value)


def test_missing_files_are_named(written, tmp_path):
    (written / "meta_000003.json").rename(tmp_path / "meta")
    with pytest.raises(DataError, match=r"meta_000003\.json is missing"):
        read(written)
    (written / "tokenizer.pkl").unlink()
    with pytest.raises(DataError, match=r"no tokenizer\.pkl"):
        read(written)
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no model_<step>\.pt .* it holds nothing"):
        read(tmp_path / "empty")


def test_a_pipe_in_place_of_a_file_does_not_hang(written):
    for name, reason in (("model_000003.pt", "is not a regular file"), ("meta_000003.json", "is missing")):
        (written / name).unlink()
        os.mkfifo(written / name)
        with pytest.raises(DataError, match=reason):
            read(written)
        (written / name).unlink()
        (written / name).write_bytes(b'{"model_config": {}}')


def test_another_models_tokenizer_is_refused(written):
    other = Tokenizer.from_ranks({bytes([b]): b for b in range(256)} | {b"he": 256})
    config = ModelConfig(sequence_len=16, vocab_size=266, n_layer=1, n_head=1, n_kv_head=1, n_embd=2)
    away = written.parent / "other"
    away.mkdir()
    model = GPT(config)
    write_nanochat_folder(away, state=model.state_dict(), config=config, tokenizer=other, step=1, results={})
    shutil.copy(away / "tokenizer.pkl", written)
    with pytest.raises(DataError, match=r"tokenizer\.pkl: the tokenizer has 266 tokens, the model 265"):
        read(written)
