"""A tiny model and its published folder, and payloads that leave a trace if anything of them is run."""

from __future__ import annotations

import builtins
import copyreg
import os
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tiny_model() -> GPT:
    shape = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 16}
    config = ModelConfig(sequence_len=16, vocab_size=265, document_token=256, **shape)
    model = GPT(config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.empty(weight.shape).normal_(generator=generator)
    return model


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)})


@pytest.fixture
def written(tiny_model: GPT, byte_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A flat folder of step 3."""
    folder = tmp_path / "published"
    folder.mkdir()
    write_nanochat_folder(
        folder,
        state=tiny_model.state_dict(),
        config=tiny_model.config,
        tokenizer=byte_tokenizer,
        step=3,
        results={"val_loss": 1.5},
    )
    return folder


class Reduced:
    """Pickles as a call: unpickled without care, it is made."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stateful:
    """Pickles as an object whose state is set by a call."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return copyreg._reconstructor, (Stateful, object, None), {"x": Reduced(os.mkdir, self.target)}


PAYLOADS = {
    "system": lambda target: Reduced(os.system, f"mkdir {target}"),
    "mkdir": lambda target: Reduced(os.mkdir, target),
    "eval": lambda target: Reduced(builtins.eval, f"__import__('os').mkdir({target!r})"),
    "exec": lambda target: Reduced(builtins.exec, f"import os; os.mkdir({target!r})"),
    "getattr": lambda target: Reduced(builtins.getattr, Reduced(__import__, "os"), "mkdir"),
    "copyreg": Stateful,
    "torch": lambda target: Reduced(torch.load, target),
}


@pytest.fixture(params=PAYLOADS)
def payload(request, tmp_path: Path):
    """An object that would make the folder `ran`; that nothing did is checked afterwards."""
    target = tmp_path / "ran"
    yield PAYLOADS[request.param](str(target))
    assert not target.exists()
