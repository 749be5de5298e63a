"""What `export --format transformers` writes, compared with the transformers package itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

# Its libraries ask the network for nothing, and read this at import.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from nanochat.chat.engine import Engine
from nanochat.config import ModelConfig
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.published import Published
from nanochat.formats.transformers_folder import write_transformers_folder
from nanochat.model.gpt import GPT
from nanochat.tokenizer.chat_format import render, render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

TEXTS = (
    "The quick brown fox jumps over 12,345 lazy dogs.\n\n\t— “Really?”  ",
    "Übermäßig große Straßen; naïve cafés, señor! Ελληνικά, русский язык, עברית, العربية",
    "日本語のテキスト、中文文本，한국어 문장。 ไทย हिन्दी தமிழ் 😀👩‍👩‍👧‍👦🏳️‍🌈",
    "def f(x: int) -> str:\r\n    return f'{x!r:>10}'  # we'll SHOUT'S it'd\n\n\n\tif a&&b||!c: x<<=2;",
    "\x00\x01\x7f\x85\u2028\u200b\ufeff\u00a0 a\u0301 ſ K ﬁ Ⅷ ½ ٣٤٥ 1234567",
    "",
    "   \n  \n",
)


@pytest.fixture(scope="module")
def published(shared_golden: Path) -> Published:
    found = read_published(find_published(shared_golden / "nanochat-2025-10"))
    # As if it had been trained on documents that do not see each other: transformers must not mind.
    config = found.model.config.model_copy(update={"document_token": found.tokenizer.special("bos")})
    found.model.config = config
    return found


@pytest.fixture(scope="module")
def golden(shared_golden: Path):
    return json.loads((shared_golden / "nanochat-2025-10/golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(published: Published, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export")
    write_transformers_folder(out, published)
    return out


@pytest.fixture(scope="module")
def theirs(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def words(folder: Path):
    return AutoTokenizer.from_pretrained(folder)


def largest_difference(theirs, model, prompts) -> float:
    with torch.no_grad():
        logits = [(theirs(ids).logits, model(ids)) for ids in map(torch.tensor, prompts)]
    return max(float((a - b).abs().max()) for a, b in logits)


@pytest.fixture
def rounded(monkeypatch):
    """Round a model's rotary tables to bfloat16, as training did."""

    def call(model):
        forward = model.model.rotary_emb.forward

        def tables(*args, **kwargs):
            return tuple(table.bfloat16().float() for table in forward(*args, **kwargs))

        monkeypatch.setattr(model.model.rotary_emb, "forward", tables)

    return call


def test_logits_are_equal_but_for_the_rotary_tables(golden, published, theirs, rounded):
    """Measured: 3.4e-4 with tables in float32 as transformers has them, 0 with tables as in training."""
    prompts = [[prompt] for prompt in golden["prompt_ids"]]
    assert largest_difference(theirs, published.model, prompts) < 2e-3
    rounded(theirs)
    assert largest_difference(theirs, published.model, prompts) < 1e-5


def test_greedy_text_is_equal(golden, published, theirs, words):
    engine = Engine(published.model, published.tokenizer)
    settings = GenerationConfig(do_sample=False, max_new_tokens=24, temperature=1.0, top_k=50)
    for prompt in golden["prompt_ids"]:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            answer = theirs.generate(ids, generation_config=settings)[0, len(prompt) :].tolist()
        ours = list(engine.generate(prompt, max_new_tokens=24))
        assert words.decode(answer[: len(ours)]) == published.tokenizer.decode(ours)
        assert len(ours) == 24 or answer[len(ours)] in theirs.generation_config.eos_token_id


def test_token_ids_are_equal_and_text_comes_back(published, words):
    for text in TEXTS:
        ids = words(text).input_ids
        assert ids == published.tokenizer.encode(text)
        assert words.decode(ids) == text


def test_every_character_between_others_gets_the_same_ids(published, words):
    """Two regex engines with tables of their own: letters, digits and blanks are the same to both."""
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(f"a{c} 1{c}{c}'{c}\n" for c in characters[i : i + 997]) for i in range(0, 0x20000, 997)]
    for text, encoding in zip(texts, words(texts).input_ids, strict=True):
        assert encoding == published.tokenizer.encode(text)


def test_special_tokens_in_a_document_are_text_when_asked(published, words):
    text = "a <|bos|> b<|assistant_end|>"
    assert words(text, split_special_tokens=True).input_ids == published.tokenizer.encode(text)
    assert published.tokenizer.special("bos") in words(text).input_ids  # what transformers does unasked


def test_the_template_renders_ids_and_mask_of_training(golden, published, words):
    for conversation, expected in zip(golden["conversations"], golden["rendered"], strict=True):
        rendered = words.apply_chat_template(
            conversation["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert rendered["input_ids"] == expected["ids"]
        assert rendered["assistant_masks"] == expected["mask"]


def test_the_template_renders_prompts_for_completion(golden, words):
    for conversation, expected in zip(golden["conversations"], golden["completion_prompts"], strict=True):
        asked = conversation["messages"]
        asked = asked[:-1] if asked[-1]["role"] == "assistant" else asked
        rendered = words.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)
        assert rendered["input_ids"] == expected


CALCULATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two and two?\n"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": " It is "},
            {"type": "python", "text": "2+2"},
            {"type": "python_output", "text": "4"},
            {"type": "text", "text": "4."},
        ],
    },
    {"role": "user", "content": "And\tthree?"},
    {"role": "assistant", "content": ""},
]


def test_system_messages_calculations_and_empty_answers_are_rendered_as_in_training(published, words):
    rendered = words.apply_chat_template(
        CALCULATION, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert (rendered["input_ids"], rendered["assistant_masks"]) == render(published.tokenizer, CALCULATION)
    asked = words.apply_chat_template(CALCULATION[:2], add_generation_prompt=True, return_dict=True)
    assert asked["input_ids"] == render_for_completion(published.tokenizer, CALCULATION[:2])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": "x <|assistant_start|> y"}], "special token"),
        ([{"role": "assistant", "content": "x"}], "alternate"),
        ([{"role": "user", "content": "x"}] * 2, "alternate"),
        ([{"role": "system", "content": "x"}], "followed by a user"),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [{"type": "text", "text": "y"}] * 2},
            ],
            "join them",
        ),
    ],
)
def test_the_template_refuses_what_it_cannot_render_as_training_did(words, messages, reason):
    with pytest.raises(Exception, match=reason):
        words.apply_chat_template(messages)


def test_a_random_model_with_shared_heads_has_equal_logits_both_ways(tmp_path, rounded):
    config = ModelConfig(sequence_len=63, vocab_size=265, n_layer=3, n_head=6, n_kv_head=2, n_embd=84)
    model = GPT(config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.empty(weight.shape).normal_(std=weight.size(-1) ** -0.5, generator=generator)
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    write_transformers_folder(tmp_path, Published(model=model, tokenizer=tokenizer))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    rounded(theirs)
    ids = torch.randint(265, (2, 17), generator=generator)
    assert largest_difference(theirs, model, ids[None].tolist()) < 1e-5
    theirs.save_pretrained(tmp_path / "again", max_shard_size="100KB")
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 1
    back = read_published(find_published(tmp_path / "again"))
    assert back.model.config == config
    assert back.tokenizer.ranks == tokenizer.ranks and back.tokenizer.pattern == tokenizer.pattern
    assert all(torch.equal(back.model.state_dict()[n], w) for n, w in model.state_dict().items())
