"""Folders of architecture 2026 in the transformers package itself, which runs the code that lies in them."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch

# Its libraries ask the network for nothing, and read this at import.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    dynamic_module_utils,
)

from nanochat.chat.engine import Engine
from nanochat.config import ModelConfig
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.published import Published
from nanochat.formats.transformers_folder import write_transformers_folder
from nanochat.formats.transformers_form import FORMS, SHAPE
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
BOS = TOKENIZER.special("bos")
SHAPES = {
    # The reach of S is 128 positions and so beyond the context, where L ends at 63.
    "odd": ModelConfig(
        architecture="2026",
        sequence_len=63,
        vocab_size=265,
        n_layer=3,
        n_head=6,
        n_kv_head=2,
        n_embd=84,
        window_pattern="SL",
        document_token=BOS,
    ),
    "trained": ModelConfig(
        architecture="2026", sequence_len=512, vocab_size=265, n_layer=12, n_head=6, n_kv_head=6, n_embd=48
    ),
    "one layer": ModelConfig(
        architecture="2026", sequence_len=40, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=24
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _code_of_folders(tmp_path_factory):
    """Keep what transformers copies out of folders away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", [*sys.path])
        yield


def random_model(config: ModelConfig) -> GPT:
    model = GPT(config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.empty(weight.shape).normal_(std=weight.size(-1) ** -0.5, generator=generator)
    return model


def load(folder, **more):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **more)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Return by shape a model of ours, the folder it was written to, and what transformers makes of that."""
    found = {}
    for name, config in SHAPES.items():
        model, folder = random_model(config), tmp_path_factory.mktemp("export")
        write_transformers_folder(folder, Published(model=model, tokenizer=TOKENIZER))
        found[name] = model, folder, load(folder)
    return found


@pytest.fixture(params=SHAPES)
def pair(request, pairs):
    return pairs[request.param]


@pytest.fixture
def odd(pairs):
    return pairs["odd"]


def some_ids(rows, length, seed=1):
    ids = torch.randint(256, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = BOS
    return ids


@torch.no_grad()
def test_logits_are_equal_past_windows_and_the_context(pair):
    model, _, theirs = pair
    ids = some_ids(2, 2 * 128 + 31)
    ids[0, 57] = ids[1, 200] = BOS  # documents in a row
    assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4


@torch.no_grad()
def test_a_cache_gives_the_logits_of_the_whole_text(pair):
    model, _, theirs = pair
    ids = some_ids(2, 150)
    ids[0, 57] = ids[1, 90] = BOS
    logits, cache = [], None
    for part in ids.split([70, 1, 1, 18, 60], dim=1):
        read = theirs(part, cache=cache)
        logits, cache = [*logits, read.logits], read.cache
    assert (torch.cat(logits, dim=1) - model(ids)).abs().max() < 1e-4


@torch.no_grad()
def test_greedy_text_of_rows_padded_on_the_left_is_that_of_each_alone(pair):
    model, folder, theirs = pair
    engine, words = Engine(model, TOKENIZER), AutoTokenizer.from_pretrained(folder)
    prompts = [some_ids(1, length, seed=length)[0].tolist() for length in (5, 11, 30)]
    padded = words.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    settings = GenerationConfig(do_sample=False, max_new_tokens=40, temperature=1.0, top_k=50)
    with_cache = theirs.generate(**padded, generation_config=settings)[:, 30:].tolist()
    for prompt, answer in zip(prompts, with_cache, strict=True):
        ours = list(engine.generate(prompt, max_new_tokens=40))
        assert answer[: len(ours)] == ours
        assert len(ours) == 40 or answer[len(ours)] in theirs.generation_config.eos_token_id


@torch.no_grad()
def test_beams_and_drafts_move_the_past_of_a_row_with_it(odd):
    _, _, theirs = odd
    ids = some_ids(1, 20)
    ids[:, 10:] = ids[:, :10]
    for more in ({"num_beams": 3}, {"prompt_lookup_num_tokens": 4}):
        settings = {"do_sample": False, "max_new_tokens": 20, "temperature": 1.0, "top_k": 50, **more}
        with_cache = theirs.generate(ids, use_cache=True, **settings)
        plain = settings if "num_beams" in more else {**settings, "prompt_lookup_num_tokens": None}
        assert with_cache.tolist() == theirs.generate(ids, use_cache=False, **plain).tolist()


def test_loss_and_gradients_are_those_of_training(pair):
    model, _, theirs = pair
    ids = some_ids(2, 40)
    labels = ids.clone()
    labels[1, 5:9] = -100
    model.zero_grad()
    targets = labels[:, 1:].where(labels[:, 1:] >= 0, -1)
    ours = model(ids[:, :-1], targets)
    ours.backward()
    theirs.train()
    for again in (False, True):
        if again:
            theirs.activation_checkpointing_enable()
        theirs.zero_grad()
        loss = theirs(ids, labels=labels).loss
        loss.backward()
        assert abs(float(loss.detach() - ours.detach())) < 1e-5
        named = dict(theirs.named_parameters())
        for name, weight in model.named_parameters():
            found = named[FORMS["2026"].their_name(name)].grad
            assert torch.allclose(found, weight.grad, rtol=1e-3, atol=1e-5), name
    theirs.activation_checkpointing_disable()
    theirs.eval()


def test_saving_and_loading_again_changes_nothing(pair, tmp_path):
    model, _, theirs = pair
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    AutoTokenizer.from_pretrained(pair[1]).save_pretrained(tmp_path)
    again = load(tmp_path)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    back = read_published(find_published(tmp_path))
    assert back.model.config == model.config
    assert all(torch.equal(back.model.state_dict()[name], w) for name, w in model.state_dict().items())


@torch.no_grad()
def test_a_model_loads_in_bfloat16_and_stays_near(pair):
    model, folder, _ = pair
    half = load(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    ids = some_ids(2, 60)
    exact, logits = model(ids), half(ids).logits
    assert logits.dtype == torch.float32
    # bfloat16 has 8 bits: each of the layers' products is off by about 2^-8 of what it adds to the stream.
    assert (logits - exact).square().mean().sqrt() < 0.1 * exact.std()
    read = half(ids[:, :50])
    rest = half(ids[:, 50:], cache=read.cache).logits
    assert (rest - logits[:, 50:]).square().mean().sqrt() < 0.1 * exact.std()


def test_the_class_holds_what_the_export_counts_on(pair):
    """And the class of transformers, of a classic model: both are asked what tensors they hold."""
    model, _, theirs = pair
    held = {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
    assert held == FORMS["2026"].sizes(model.config)
    shape = model.config.model_dump(exclude={"architecture", "window_pattern"})
    form, config = FORMS["classic"], ModelConfig(**shape)
    described = {theirs: getattr(config, ours) for ours, theirs in SHAPE.items()}
    with torch.device("meta"):
        stock = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**form.fixed(config.n_embd), **described)
        )
    assert type(stock).__name__ == form.causal_class
    assert {name: tuple(weight.shape) for name, weight in stock.state_dict().items()} == form.sizes(config)


def test_what_the_class_cannot_do_it_says(odd):
    theirs = odd[2]
    ids = some_ids(1, 9)
    for call, reason in (
        (lambda: theirs.generate(ids, cache_implementation="static", max_new_tokens=2), "use DynamicCache"),
        (lambda: theirs.resize_token_embeddings(300), "vocabulary is fixed"),
        (lambda: theirs(inputs_embeds=torch.zeros(1, 2, 3)), "reads input_ids"),
        (lambda: theirs(ids, attention_mask=torch.ones(1, 8)), "attention_mask has shape"),
    ):
        with pytest.raises((ValueError, NotImplementedError), match=reason):
            call()


def test_a_folder_is_not_loaded_as_something_else_where_its_code_is_not_trusted(odd, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "n")  # it asks, and nobody agrees
    for more in ({}, {"trust_remote_code": False}):
        with pytest.raises(ValueError, match="trust_remote_code"):
            AutoModelForCausalLM.from_pretrained(odd[1], **more)


def test_the_code_in_a_folder_needs_torch_and_transformers_alone(odd):
    _, folder, _ = odd
    names = sorted(path.name for path in folder.glob("*.py"))
    assert names == ["configuration_nanochat2026.py", "modeling_nanochat2026.py"]
    texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    lines = [line.split() for text in texts for line in text.splitlines()]
    imported = {line[1].split(".")[0] for line in lines if line and line[0] in ("from", "import")}
    assert imported == {"__future__", "dataclasses", "typing", "torch", "transformers", ""}
    auto = json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert {name.split(".")[0] + ".py" for name in auto.values()} == set(names)
