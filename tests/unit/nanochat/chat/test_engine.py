from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nanochat.chat import engine as engine_module
from nanochat.chat.engine import Engine, stream_text
from nanochat.config import ModelConfig
from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT

PROMPTS = [[256, 5, 9], [256, 70], [256, 1, 2, 3, 4, 5, 6, 7], [256, 8, 8], [256]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small only lose by sharing."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(sequence_len=64, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    model = GPT(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return model.eval()


class Scripted:
    """A model that wants the given tokens, one after the other, whatever it is fed."""

    def __init__(self, config, script):
        self.config, self.script, self.device = config, list(script), torch.device("cpu")
        self.cache_dtype = torch.float32
        self.fed = []

    def read(self, texts, kv_cache, rows):
        kv_cache.reading(rows, texts).done()
        self.fed += texts[0]
        logits = torch.zeros(len(rows), self.config.vocab_size)
        logits[:, self.script.pop(0)] = 1
        return logits


def _naive(model, prompt, count, stop):
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            token = int(model(torch.tensor([ids]))[0, -1].argmax())
            if token in stop:
                break
            ids.append(token)
    return ids[len(prompt) :]


def test_greedy_batch_equals_one_at_a_time_without_a_cache(model, tokenizer):
    stop = {tokenizer.special("bos"), tokenizer.special("assistant_end")}
    engine = Engine(model, tokenizer)
    batch = engine.generate_batch(PROMPTS, max_new_tokens=20)
    assert batch == [_naive(model, prompt, 20, stop) for prompt in PROMPTS]
    assert batch == [list(engine.generate(prompt, max_new_tokens=20)) for prompt in PROMPTS]
    assert len({tuple(row) for row in batch}) > 1


def test_a_prompt_takes_the_place_of_a_row_that_has_ended(model, tokenizer, monkeypatch):
    monkeypatch.setattr(engine_module, "_BATCH", replace(engine_module._BATCH, rows=2))
    stop = {tokenizer.special("bos"), tokenizer.special("assistant_end")}
    # What most rows write in their first tokens ends them, so that they end at different steps.
    engine, prompts = Engine(model, tokenizer), [*PROMPTS, [256, 70], [256, 9, 9, 9]]
    frequent = [row[5] for row in (_naive(model, prompt, 6, ()) for prompt in prompts)]
    engine._stop = stop | set(frequent[::2])
    expected = [_naive(model, prompt, 20, engine._stop) for prompt in prompts]
    assert len(set(map(len, expected))) > 2
    as_they_end = list(engine.generate_each(prompts, range(len(prompts)), max_new_tokens=20))
    assert dict(as_they_end) == dict(enumerate(expected))
    assert [number for number, _ in as_they_end] != sorted(range(len(prompts)))


def test_sampled_row_depends_on_its_seed_and_not_on_its_batch(model, tokenizer):
    engine = Engine(model, tokenizer)
    drawn = engine.generate_batch(PROMPTS, max_new_tokens=12, temperature=1.0, top_k=20, seed=7)
    alone = [
        list(engine.generate(prompt, max_new_tokens=12, temperature=1.0, top_k=20, seed=7 + i))
        for i, prompt in enumerate(PROMPTS)
    ]
    assert drawn == alone


def test_first_tokens_of_equal_prompts_differ(model, tokenizer):
    drawn = Engine(model, tokenizer).generate_batch([[256, 65]] * 8, max_new_tokens=1, temperature=1.0)
    assert len({tuple(row) for row in drawn}) > 1


def test_top_k_of_one_is_greedy(model, tokenizer):
    engine = Engine(model, tokenizer)
    sampled = engine.generate_batch(PROMPTS, max_new_tokens=8, temperature=2.0, top_k=1)
    assert sampled == engine.generate_batch(PROMPTS, max_new_tokens=8)


@pytest.mark.parametrize(("expression", "output"), [("2*3", "6"), ("20/2", "10"), ("x", None)])
def test_result_of_a_calculation_is_put_into_the_row(tokenizer, expression, output):
    special = tokenizer.special
    call = [special("python_start"), *tokenizer.encode(expression), special("python_end")]
    forced = []
    if output is not None:
        forced = [special("output_start"), *tokenizer.encode(output), special("output_end")]
    # While output is due the model's own wishes (here 0) count for nothing.
    script = [*call, *[0] * len(forced), 33, special("assistant_end")]
    config = ModelConfig(sequence_len=64, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)
    model = Scripted(config, script)
    tokens = list(Engine(model, tokenizer).generate([256, 1], max_new_tokens=50))
    assert tokens == [*call, *forced, 33]
    assert model.fed == [256, 1, *tokens]


@pytest.mark.parametrize("end", ["bos", "assistant_end"])
def test_terminal_tokens_end_a_row_and_are_not_returned(tokenizer, end):
    config = ModelConfig(sequence_len=64, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)
    model = Scripted(config, [40, tokenizer.special(end), 41])
    assert Engine(model, tokenizer).generate_batch([[256]], max_new_tokens=9) == [[40]]
    assert model.script == [41]


def test_no_prompts_and_no_tokens_give_nothing(model, tokenizer):
    assert Engine(model, tokenizer).generate_batch([], max_new_tokens=5) == []
    assert Engine(model, tokenizer).generate_batch([[256]], max_new_tokens=0) == [[]]


def test_streamed_pieces_are_whole_characters(tokenizer):
    text = "añ日😀!"
    pieces = list(stream_text(tokenizer, iter(tokenizer.encode(text))))
    assert pieces == list(text)
    broken = [0xF0, 0x9F, 0x41, 0xFF, 0xC3]
    assert "".join(stream_text(tokenizer, iter(broken))) == bytes(broken).decode(errors="replace")


def test_greedy_continuations_are_those_of_upstream(shared_golden):
    folder = shared_golden / "nanochat-2025-10"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    state = torch.load(folder / "chatsft_checkpoints/d3/model_000650.pt", map_location="cpu")
    model = model_from_state(ModelConfig(**golden["config"]), state, source="golden")
    engine = Engine(model.eval(), load_tokenizer_pickle(folder / "tokenizer/tokenizer.pkl"))
    prompts = golden["prompt_ids"]
    new = engine.generate_batch(prompts, max_new_tokens=24)
    assert [p + n for p, n in zip(prompts, new, strict=True)] == golden["greedy_24"]


def test_a_use_of_the_calculator_is_shown_in_brackets(tokenizer):
    special = tokenizer.special
    tokens = [
        special("python_start"),
        *tokenizer.encode("3+4"),
        special("python_end"),
        special("output_start"),
    ]
    tokens += [*tokenizer.encode("7"), special("output_end"), *tokenizer.encode("So 7.")]
    assert "".join(stream_text(tokenizer, iter(tokens))) == "[3+4 = 7] So 7."
