"""The script in a published folder answers as `nanochat chat` does, and runs nothing that it finds there."""

from __future__ import annotations

import argparse
import importlib.util
import pickle
import subprocess
import sys

import pytest
import torch

from nanochat.chat.conversation import Dialogue
from nanochat.chat.engine import Engine
from nanochat.chat.pieces import shown
from nanochat.config import ModelConfig, Sampling
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.gpt import GPT
from nanochat.publish.standalone import standalone_script
from nanochat.tokenizer.tokenizer import Tokenizer
from tests.support.serving import SUM, tiny_engine, write_tiny_model

_PROMPTS = ("hi", "What is 3 plus 4?", "日本 and a long question, " * 20)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The published script as a module."""
    path = tmp_path_factory.mktemp("script") / "generate_cpu.py"
    path.write_text(standalone_script(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("published_generate_cpu", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _random_engine(architecture: str, n_kv_head: int) -> Engine:
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)})
    config = ModelConfig(
        architecture=architecture,
        sequence_len=1100,  # more than a short window
        vocab_size=tokenizer.vocab_size,
        n_layer=5,
        n_head=4,
        n_kv_head=n_kv_head,
        n_embd=32,
    )
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=2 * weight.size(-1) ** -0.5, generator=generator)
    return Engine(model.eval(), tokenizer)


def _answer(script, folder, prompt, **settings):
    given = {"system": "", "temperature": 0.6, "top_k": 50, "max_tokens": 256, "seed": 42} | settings
    tokenizer = script.read_tokenizer(folder / "tokenizer.pkl")
    with torch.inference_mode():
        tokens = script.answer(script.GrowingText(folder), tokenizer, prompt, argparse.Namespace(**given))
        return "".join(script.shown(tokens, tokenizer))


@pytest.mark.parametrize(("architecture", "n_kv_head"), [("classic", 4), ("classic", 2), ("2026", 2)])
def test_it_answers_as_a_chat_does(script, tmp_path, architecture, n_kv_head):
    engine = _random_engine(architecture, n_kv_head)
    model = engine.model
    write_nanochat_folder(
        tmp_path,
        state=model.state_dict(),
        config=model.config,
        tokenizer=engine.tokenizer,
        step=1,
        results={},
    )
    for prompt in _PROMPTS:
        for settings in ({}, {"temperature": 0.0}, {"system": "Be brief.", "seed": 7, "top_k": 0}):
            sampling = Sampling(
                temperature=settings.get("temperature", 0.6),
                top_k=settings.get("top_k", 50) or None,
                seed=settings.get("seed", 42),
            )
            expected = shown(Dialogue(engine, sampling, settings.get("system", "")).ask(prompt))
            assert _answer(script, tmp_path, prompt, **settings) == expected


def test_it_uses_the_calculator_as_a_chat_does(script, tmp_path):
    for number, expression in enumerate(("3+4", '"strawberry".count("r")', "1/0", "7 / 2", "12,000*2")):
        answer = (*SUM[:5], *expression, *SUM[8:])
        if len(set(answer)) < len(answer):
            answer = (*SUM[:5], expression, *SUM[8:])
        folder = write_tiny_model(tmp_path / str(number), answer)
        assert _answer(script, folder, "hi") == shown(Dialogue(tiny_engine(answer)).ask("hi"))


def test_it_needs_nothing_of_this_project_and_runs_nothing_of_a_folder(tmp_path):
    folder = write_tiny_model(tmp_path / "model")
    script = folder / "generate_cpu.py"
    script.write_text(standalone_script(), encoding="utf-8")
    assert "nanochat." not in "\n".join(
        line for line in script.read_text().splitlines() if line.startswith(("import ", "from "))
    )

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(script), "--prompt", "hi"]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert run().stdout == "Let me see: [3+4 = 7]  That makes **7**, or 日本語.\n"
    hostile = pickle.dumps(argparse.Namespace)  # names a class
    (folder / "tokenizer.pkl").write_bytes(hostile)
    refused = run()
    assert refused.returncode == 1 and "argparse.Namespace, which is not run" in refused.stderr
