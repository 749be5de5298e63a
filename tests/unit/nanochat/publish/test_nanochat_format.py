"""Published folders are read back as written, upstream's with its own numbers, hostile ones never."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.publish.nanochat_format import read_nanochat_folder, write_nanochat_folder
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(sequence_len=16, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=16)
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def written(model, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    write_nanochat_folder(
        folder, state=model.state_dict(), config=model.config, tokenizer=tokenizer, step=3, results={}
    )
    return folder


def test_a_folder_comes_back_as_it_was_written(written, model):
    read, tokenizer = read_nanochat_folder(written)
    assert read.config == model.config
    assert all(torch.equal(read.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert tokenizer.decode(tokenizer.encode("Grüße, 123")) == "Grüße, 123"


def test_upstreams_cache_layout_is_read_with_its_logits(shared_golden):
    golden = shared_golden / "nanochat-2025-10"
    model, tokenizer = read_nanochat_folder(golden)
    expected = torch.load(golden / "golden_logits.pt", weights_only=True)["logits"]
    prompts = json.loads((golden / "golden.json").read_text(encoding="utf-8"))["prompt_ids"]
    assert tokenizer.vocab_size == model.config.vocab_size
    for ids, logits in zip(prompts, expected, strict=True):
        with torch.inference_mode():
            assert torch.allclose(model(torch.tensor([ids]))[0], logits, atol=1e-4)


class _Payload:
    """Unpickled without care, it would make a folder."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("name", ["model_000003.pt", "tokenizer.pkl"])
def test_a_hostile_file_is_refused_and_runs_nothing(written, tmp_path, name):
    target = tmp_path / "ran"
    with (written / name).open("wb") as file:
        if name.endswith(".pt"):
            torch.save({"lm_head.weight": _Payload(target)}, file)
        else:
            pickle.dump(_Payload(target), file)
    with pytest.raises(DataError) as caught:
        read_nanochat_folder(written)
    assert name in str(caught.value) or "tokenizer pickle asks for posix.mkdir" in str(caught.value)
    assert not target.exists()


def test_a_truncated_file_and_another_tokenizer_are_named(written, tmp_path):
    weights = written / "model_000003.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="model_000003"):
        read_nanochat_folder(written)
    weights.write_bytes(whole)
    meta = json.loads((written / "meta_000003.json").read_text())
    meta["model_config"]["n_layer"] = 3
    (written / "meta_000003.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="model_000003"):
        read_nanochat_folder(written)
    with pytest.raises(DataError, match=r"no model_\*\.pt"):
        read_nanochat_folder(tmp_path)
