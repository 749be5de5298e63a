"""The toy, exported as GGUF, in llama.cpp as everybody runs it: its answers, and what each type costs."""

from __future__ import annotations

import math
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest
import torch

from flows.models.find import open_model
from flows.models.import_export import export_model
from flows.store import Store
from nanochat.formats.gguf_weights import WeightType
from nanochat.formats.published import Choice, Published
from nanochat.tokenizer.chat_format import render_for_completion
from tests.benchmarks.bench_gguf import capped, read_rows
from tests.support.greedy import greedy
from tests.support.llama_cpp import LlamaCpp

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("toy"),
    pytest.mark.skipif(
        find_spec("xllamacpp") is None,
        reason="the wheel xllamacpp, which brings llama.cpp, is not for this system",
    ),
]

QUESTIONS = [f"What is {a} plus {b}?" for a in (2, 7, 12) for b in (3, 5, 9, 11)] + [
    *("Hi!", "Who are you?", "What is the capital of Lomia?", "Where does Anna live?"),
    *(
        "What is the opposite of hot?",
        "Is a dog an animal?",
        "Write a function that doubles.",
        "Good morning",
    ),
]
# How far perplexity may be from ours; measured: 5e-5, 1.2e-4, 2e-5, 2.7e-4 and 0.014.
COSTS = {"f32": 5e-4, "bf16": 1e-3, "f16": 5e-4, "q8_0": 2e-3, "q4_K": 0.04}


@pytest.fixture(scope="module")
def store(toy) -> Store:
    home = toy.nanochat.home
    return Store.open(str(home / "store"), cache=home / "cache")


@pytest.fixture(scope="module")
def files(store, tmp_path_factory) -> dict[str, Path]:
    """The published model in each type."""
    folder = tmp_path_factory.mktemp("gguf")
    for kind in get_args(WeightType):
        export_model(store, "publish", folder / kind, form="gguf", kind=kind, choice=Choice())
    return {kind: next((folder / kind).glob("nanochat-toy-*.gguf")) for kind in get_args(WeightType)}


@pytest.fixture(scope="module")
def published(store) -> Published:
    return open_model(store, "publish")


def test_its_answers_are_ours(published, files):
    assert len(QUESTIONS) == 20
    model = LlamaCpp(files["f32"], context=256)
    for question in QUESTIONS:
        prompt = render_for_completion(published.tokenizer, [{"role": "user", "content": question}])
        ends = {published.tokenizer.special(name) for name in ("bos", "assistant_end")}
        model.clear()
        answer = model.feed([prompt], 0)
        while not model.ends(answer[-1]) and len(answer) < 100:
            answer += model.feed([answer[-1:]], len(prompt) + len(answer) - 1)
        written = answer[:-1] if model.ends(answer[-1]) else answer
        assert written == greedy(published.model, prompt, 100, ends), question
    model.close()


def test_each_type_costs_no_more_perplexity_than_its_bits(store, published, files):
    with tempfile.TemporaryDirectory() as scratch:
        text = store.fetch(store.resolve("download/shard_00002"), Path(scratch))
        texts = pq.read_table(text / "text.parquet").column("text").to_pylist()[:200]
    rows = read_rows(published, texts, length=16, count=48)
    assert len(rows) == 48
    ours = sum(row.surprise(row.ours) for row in rows)
    for kind, file in files.items():
        model = LlamaCpp(file, context=16)
        theirs = sum(row.surprise(capped(torch.from_numpy(model.logits(row.ids)))) for row in rows)
        model.close()
        ratio = math.exp((theirs - ours) / (48 * 15))
        assert abs(ratio - 1) < COSTS[kind], kind
