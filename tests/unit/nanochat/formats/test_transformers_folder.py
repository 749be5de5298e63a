"""Folders in transformers' format without its package: read back as written, refused where they do not fit.

What the package itself makes of them: `tests/parity/nanochat/formats/test_transformers.py`.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.config import ModelConfig
from nanochat.errors import ConfigError, DataError
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.mlx_folder import write_mlx_folder
from nanochat.formats.published import Choice, Published
from nanochat.formats.transformers_folder import refuse_misread, write_transformers_folder
from nanochat.formats.transformers_form import FORMS
from nanochat.model.gpt import GPT


@pytest.fixture
def folder(tiny_model, byte_tokenizer, tmp_path):
    out = tmp_path / "theirs"
    out.mkdir()
    write_transformers_folder(
        out,
        Published(model=tiny_model, tokenizer=byte_tokenizer, step=7, source="mid", results={"val_bpb": 1.5}),
    )
    return out


def read(folder):
    return read_published(find_published(folder))


def refused(folder, reason):
    with pytest.raises(DataError, match=reason):
        read(folder)


def change(folder, file="config.json", **fields):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **fields}))


def test_model_tokenizer_and_note_come_back_as_they_were_written(folder, tiny_model, byte_tokenizer):
    back = read(folder)
    assert back.model.config == tiny_model.config
    assert all(torch.equal(back.model.state_dict()[n], w) for n, w in tiny_model.state_dict().items())
    assert back.tokenizer.ranks == byte_tokenizer.ranks
    assert back.tokenizer.special_tokens == byte_tokenizer.special_tokens
    assert (back.step, back.source, back.results) == (7, "mid", {"val_bpb": 1.5})


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    (tmp_path / "again").mkdir()
    write_transformers_folder(tmp_path / "again", read(folder))
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_folder_of_somebody_else_needs_no_note_and_may_hold_bfloat16(folder):
    (folder / "nanochat.json").unlink()
    weights = folder / "model.safetensors"
    save_file({name: w.bfloat16() for name, w in load_file(weights).items()}, weights)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0, "rms_norm_eps": 1e-6}))
    back = read(folder)
    assert (back.step, back.source) == (0, "sft")
    assert {weight.dtype for weight in back.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', not 'nanochat' or 'nanochat_2026'"),
        ({"final_logit_softcapping": 30.0}, r"final_logit_softcapping is 30\.0, where this model has 15"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is"),
        ({"rope_parameters": None, "rope_theta": 5e5}, "rope_parameters is"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"intermediate_size": 63}, "intermediate_size is 63, where this model has 64"),
        ({"num_hidden_layers": 3}, "has 2 layers, config.json says 3"),
        ({"num_hidden_layers": 10**9}, "n_layer is 1,000,000,000; at most"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"vocab_size": 300}, r"has shape \(265, 16\), expected \(300, 16\)"),
    ],
    ids=str,
)
def test_a_model_that_computes_something_else_is_refused_by_field(folder, fields, reason):
    change(folder, **fields)
    refused(folder, rf"{folder}.*{reason}")


def test_weights_of_whole_numbers_missing_and_damaged_ones_are_refused(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({**state, "lm_head.weight": torch.ones(265, 16, dtype=torch.int32)}, path)
    refused(folder, "lm_head.weight is of type int32; weights are float32")
    save_file({**state, "lm_head.weight": state["lm_head.weight"].to(torch.float8_e4m3fn)}, path)
    refused(folder, "lm_head.weight is of type float8_e4m3fn; weights are float32")
    renamed = {name.replace("fc1", "gate_proj"): weight for name, weight in state.items()}
    save_file(renamed, path)
    refused(folder, r"model\.safetensors does not fit .*gate_proj.weight is not part of it")
    path.write_bytes(path.read_bytes()[:-9])
    refused(folder, r"model\.safetensors is not a whole safetensors file")
    path.unlink()
    refused(folder, r"no model\.safetensors")


@pytest.mark.parametrize("name", ["../theirs/model.safetensors", "/etc/passwd", "gone.safetensors"])
def test_an_index_that_leads_elsewhere_is_refused(folder, name):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    refused(folder, "which is not in the folder")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "without normalizer"),
        ({"model": {"type": "WordPiece"}}, "is not a byte-level BPE"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is not a split pattern"),
        ({"added_tokens": []}, "lacks the special tokens"),
        ({"added_tokens": 3}, "is not a byte-level BPE"),
    ],
    ids=str,
)
def test_another_kind_of_tokenizer_is_refused_by_name(folder, fields, reason):
    change(folder, "tokenizer.json", **fields)
    refused(folder, rf"tokenizer\.json.*{reason}")


def test_a_tokenizer_of_another_vocabulary_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({"id": 265, "content": "<|more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder, r"tokenizer\.json: the tokenizer has 266 tokens, the model 265")


def test_merges_out_of_order_are_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = {**vocab, "ab": 256, "cd": 257}
    content["model"]["merges"] = ["c d", "a b"]
    for entry in content["added_tokens"]:
        entry["id"] += 2
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder, "merges are not in order")


def test_a_choice_of_checkpoint_and_a_damaged_note_are_refused(folder):
    with pytest.raises(ConfigError, match="holds one checkpoint"):
        find_published(folder, Choice(step=7))
    change(folder, "nanochat.json", source="../../etc")
    refused(folder, r"nanochat\.json: step, source and results")


def test_nanochats_files_win_where_both_formats_are_there(folder, written):
    for path in written.iterdir():
        shutil.copy(path, folder)
    assert find_published(folder).format == "nanochat"


@pytest.fixture
def of_2026(byte_tokenizer):
    config = ModelConfig(
        architecture="2026", sequence_len=9, vocab_size=265, n_layer=3, n_head=2, n_kv_head=1, n_embd=24
    )
    model = GPT(config.model_copy(update={"window_pattern": "SL", "document_token": 256}))
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    return Published(model=model, tokenizer=byte_tokenizer, step=7)


def test_a_model_of_2026_comes_back_as_it_was_written(of_2026, tmp_path):
    write_transformers_folder(tmp_path, of_2026)
    back = read(tmp_path)
    assert back.model.config == of_2026.model.config and back.step == 7
    ours = of_2026.model.state_dict()
    assert back.model.state_dict().keys() == ours.keys()
    assert all(torch.equal(back.model.state_dict()[name], weight) for name, weight in ours.items())


def test_a_model_of_2026_is_not_written_for_a_class_of_transformers(of_2026, tmp_path, monkeypatch):
    """Which would drop what the classic architecture lacks, and load on."""
    monkeypatch.setitem(FORMS, "2026", FORMS["classic"])
    with pytest.raises(DataError, match="NanoChatForCausalLM would drop backout_lambda") as caught:
        write_transformers_folder(tmp_path, of_2026)
    assert "--format nanochat" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_folder_for_mlx_has_upstreams_names_and_comes_back(tiny_model, byte_tokenizer, of_2026, tmp_path):
    write_mlx_folder(tmp_path, Published(model=tiny_model, tokenizer=byte_tokenizer, step=7))
    assert load_file(tmp_path / "model.safetensors").keys() == tiny_model.state_dict().keys()
    back = read(tmp_path)
    assert back.model.config == tiny_model.config and back.step == 7
    assert all(torch.equal(back.model.state_dict()[n], w) for n, w in tiny_model.state_dict().items())
    with pytest.raises(ConfigError, match="'2026', which MLX does not have"):
        write_mlx_folder(tmp_path / "other", of_2026)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda config, sizes: sizes.update({"model.norm.weight": (24,)}), "drop model.norm.weight"),
        (lambda config, sizes: sizes.pop("lm_head.weight"), "invent lm_head.weight"),
        (
            lambda config, sizes: sizes.update({"lm_head.weight": (1, 2)}),
            r"take lm_head.weight for \(\d+, \d+\)",
        ),
        (lambda config, sizes: config.update(architectures=["LlamaForCausalLM"]), "be loaded as .*Llama"),
        (lambda config, sizes: config.update(auto_map={"AutoModel": "a.B"}), "be loaded as .*a.B"),
        (lambda config, sizes: config.update(max_position_embeddings=10), "read the shape"),
        (lambda config, sizes: config.update(tie_word_embeddings=True), "tie_word_embeddings is True"),
        (lambda config, sizes: config.update(model_type="llama"), "model_type is 'llama'"),
    ],
)
@pytest.mark.parametrize("architecture", FORMS)
def test_what_the_class_would_take_for_something_else_is_refused(
    architecture, changed, reason, folder, of_2026, tiny_model, tmp_path
):
    if architecture == "2026":
        write_transformers_folder(tmp_path, of_2026)
        folder = tmp_path
    model = of_2026.model if architecture == "2026" else tiny_model
    config = json.loads((folder / "config.json").read_text())
    sizes = {name: tuple(weight.shape) for name, weight in load_file(folder / "model.safetensors").items()}
    refuse_misread(config, sizes, model.config)
    changed(config, sizes)
    with pytest.raises(DataError, match=reason):
        refuse_misread(config, sizes, model.config)
