"""What `export --format mlx` writes, compared with what mlx-lm makes of it on this machine's CPU."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

from nanochat.chat.engine import Engine
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.mlx_folder import write_mlx_folder
from nanochat.model.architecture import ARCHITECTURES
from nanochat.model.attention import rotary_tables


@pytest.fixture(scope="module")
def prompts(shared_golden: Path):
    return json.loads((shared_golden / "nanochat-2025-10/golden.json").read_text(encoding="utf-8"))[
        "prompt_ids"
    ]


@pytest.fixture(scope="module")
def ours(shared_golden: Path):
    """Return a small trained model with rotary tables in float32, as MLX has them."""
    found = read_published(find_published(shared_golden / "nanochat-2025-10"))
    model, exact = found.model, dataclasses.replace(ARCHITECTURES["classic"], bfloat16_tables=False)
    width = model.config.n_embd // model.config.n_head
    model.cos, model.sin = rotary_tables(exact, model.cos.size(1), width, model.device)
    return found


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlx")
    write_mlx_folder(folder, ours)
    return load(str(folder))


@torch.no_grad()
def test_logits_are_equal_but_for_the_eps_of_the_norm(ours, theirs, prompts):
    """MLX adds 1e-5 to mean squares before their root, where ours adds 1e-7."""
    for prompt in prompts:
        exact = mx.array(ours.model(torch.tensor([prompt])).numpy())
        assert float(mx.abs(theirs[0](mx.array([prompt])) - exact).max()) < 5e-4


def test_greedy_text_is_equal_and_ends_at_the_same_token(ours, theirs, prompts):
    model, words = theirs
    engine = Engine(ours.model, ours.tokenizer)
    for prompt in prompts:
        cache, read, answer = make_prompt_cache(model), mx.array([prompt]), []
        while len(answer) < 24 and not (answer and answer[-1] in words.eos_token_ids):
            answer.append(int(mx.argmax(model(read, cache=cache)[0, -1])))
            read = mx.array([answer[-1:]])
        expected = list(engine.generate(prompt, max_new_tokens=24))
        assert answer[: len(expected)] == expected
        assert len(expected) == 24 or answer[len(expected) :][0] in words.eos_token_ids
