"""The card of a published d20, made again from a record of its numbers: in each section the same facts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from nanochat.config import CardConfig, CitationConfig, EvaluateConfig, PublishConfig
from nanochat.evals.contamination.overlap import Overlap
from nanochat.evals.protocol import protocol
from nanochat.model.flops import parameter_count
from nanochat.publish import training_facts
from nanochat.publish.card_inputs import CardInputs
from nanochat.publish.model_card import render_model_card
from nanochat.recipes import find
from tests.support.d20_records import d20_records

_H100 = {"cpu": "Xeon", "cores": 208, "memory_bytes": 1800 * 2**30, "gpu": "NVIDIA H100", "gpus": 8}
_MADE = {
    "pretrain": ({"steps": 21_400, "tokens": 11_219_763_200, "flops": 3.9e19}, 3 * 3600, 72.0),
    "midtrain": ({"steps": 809, "tokens": 424_148_992, "flops": 1.5e18}, 1500, 10.0),
    "sft": ({"steps": 700, "tokens": 12_000_000, "flops": 4e16}, 600, 4.0),
    "tokenize/shard_00000": ({"documents": 1000, "bytes": 4_850_000, "characters": 4_800_000}, 60, 1.0),
    "render/midtrain": (
        {"rows": {"smoltalk": {"used": 460_000}, "mmlu": {"used": 99_842}, "gsm8k": {"used": 7_473}}},
        60,
        1.0,
    ),
}
_SCORES = {
    "mmlu": (0.2399, 0.25, 14_042),
    "gsm8k": (0.0447, 0.0, 1_319),
    "humaneval": (0.0671, 0.0, 164),
    "arc_easy": (0.2479, 0.25, 2_376),
    "arc_challenge": (0.2432, 0.25, 1_172),
}
_CARD = CardConfig(
    developed_by="Andrej Karpathy",
    trained_by="Sam Dobson",
    author="Sam Dobson",
    corpus="100B token subset of FineWeb-EDU",
    infrastructure="Lambda GPU Cloud",
    links=(
        "https://samdobson.uk/posts/training-a-chatgpt-clone-for-cheap/",
        "https://huggingface.co/spaces/sdobson/nanochat",
    ),
    uses=("Conversational AI applications", "Low-resource deployment scenarios"),
    downstream_uses=("fine-tuned for specific conversational tasks",),
    out_of_scope_uses=("Critical applications where errors could cause harm",),
    limitations=("Inherits biases from training data (FineWeb-EDU, SmolTalk)",),
    citation=CitationConfig(title="nanochat: A 561M parameter conversational language model"),
)
_FACTS = {
    "nanochat": ("560,988,160 parameters", "training-a-chatgpt-clone-for-cheap", "spaces/sdobson/nanochat"),
    "Model description": (
        *("**Developed by:** Andrej Karpathy", "**Trained by:** Sam Dobson", "transformer"),
        *("**Languages:** English", "**License:** mit", "**Parameters:** 560,988,160"),
        "https://github.com/karpathy/nanochat",
    ),
    "Architecture": (
        "| Layers | 20 |",
        "| Width | 1280 |",
        "heads | 10 ",
        "| Head dimension | 128 |",
        "65536",
    ),
    "Data": (
        "**Pretraining:** 100B token subset of FineWeb-EDU; 11,219,763,200 tokens",
        "460,000 of smoltalk, 99,842 of MMLU, 7,473 of GSM8K",
        "HuggingFaceFW/fineweb-edu",
    ),
    "Tokenizer": ("65,536 tokens", "4.80 characters per token"),
    "Stages": ("Pretraining | 21,400", "| 3:00:00 |", "Midtraining | 809", "fine-tuning", "4.05e+19 FLOPs"),
    "Infrastructure": ("Lambda GPU Cloud", "8 x NVIDIA H100", "| pretrain | 1 | 3:00:00 |"),
    "Cost": ("$88.00",),
    "Benchmarks": (
        *("| MMLU |", "| 23.99 % (", "| GSM8K |", "| 4.47 % (", "| HumanEval |", "| 6.71 % ("),
        *("| ARC-Easy |", "| 24.79 % (", "| ARC-Challenge |", "| 24.32 % (", "| ChatCORE |", "0.0173"),
        *("law to anatomy", "science questions for schools"),
    ),
    "Direct use": ("Conversational AI applications", "Low-resource deployment scenarios"),
    "Downstream use": ("fine-tuned for specific conversational tasks",),
    "Out-of-scope use": ("Critical applications where errors could cause harm",),
    "Limitations": ("small model", "little text", "Inherits biases", "English"),
    "How to run": ("nanochat chat", "chatsft_checkpoints", "token_bytes.pt", "transformers", "llama-cli"),
    "Citation": (
        "@software{nanochat2025,",
        "author = {Karpathy, Andrej}",
        "title = {nanochat: A 561M parameter conversational language model}",
        "year = {2025}",
        "url = {https://github.com/karpathy/nanochat}",
    ),
    "Author of this card": ("Sam Dobson",),
}


def _records() -> dict[str, dict[str, Any]]:
    titles = {"pretrain": "Pretraining", "midtrain": "Midtraining", "sft": "Supervised fine-tuning"}
    before = {"midtrain": "pretrain", "sft": "midtrain"}
    found = {}
    for made in (one for one in d20_records() if one["node"] in _MADE):
        metrics, seconds, dollars = _MADE[made["node"]]
        tokens = {"tokens": 1_001_000} if made["stage"] == "tokenize" else {}
        inputs = {"chat": {"node": f"render/{made['node']}"}}
        model = inputs | {"model": {"node": before[made["node"]]}} if made["node"] in before else {}
        provenance = {"seconds": seconds, "dollars": dollars, "commit": "0" * 40, "hardware": _H100}
        found[made["node"]] = {
            **made,
            "inputs": model,
            "metrics": {**metrics, **tokens},
            "title": titles.get(made["node"], ""),
            "key": "0" * 64,
            "digest": "1" * 64,
            "provenance": provenance,
        }
    return found


def _card(recipe_name: str = "d20") -> tuple[dict[str, Any], dict[str, str]]:
    """Return the front matter and the sections by their titles."""
    recipe = find(recipe_name)
    tasks = {
        name: {"accuracy": score, "baseline": chance, "centered": 0.0, "problems": count, "of": count}
        for name, (score, chance, count) in _SCORES.items()
    }
    results = {
        "model": "sft",
        "tasks": tasks,
        "core": {},
        "metrics": {"chatcore": 0.0173},
        "protocol": protocol(EvaluateConfig(), with_core=False),
    }
    found = Overlap(ngram_words=13, shards=1, documents=1000, overlapping_documents=0, tasks={}, core={})
    publish = PublishConfig(title="nanochat", datasets=recipe.publish.datasets, card=_CARD)
    model = recipe.pretrain.model
    inputs = CardInputs(publish, model, parameter_count(model), {"sft": results}, found, _records())
    _, front, body = render_model_card(inputs).split("---\n", 2)
    sections = {}
    for part in f"\n{body}".split("\n#")[1:]:
        title, _, text = part.lstrip("#").partition("\n")
        sections[title.strip()] = text
    return yaml.safe_load(front), sections


def test_each_section_states_the_facts_of_the_published_card():
    _, sections = _card()
    missing = {
        title: [fact for fact in facts if fact not in sections.get(title, "")]
        for title, facts in _FACTS.items()
    }
    assert {title: facts for title, facts in missing.items() if facts} == {}


@pytest.mark.parametrize(("recipe", "is_classic"), [("d20", True), ("2026-d12", False)])
def test_the_guide_says_what_runs_the_architecture_and_how(recipe, is_classic):
    guide = _card(recipe)[1]["How to run"]
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    compile(code, "guide", "exec")
    assert code.count(", trust_remote_code=True)") == (0 if is_classic else 2)
    assert ("--format gguf" in guide) is is_classic
    assert "not run the calculator" in guide


def test_the_front_matter_names_what_the_hub_lists_results_under():
    front, _ = _card()
    assert (front["language"], front["license"], front["pipeline_tag"]) == (["en"], "mit", "text-generation")
    assert {"text-generation", "transformer", "conversational"} <= set(front["tags"])
    assert {"HuggingFaceFW/fineweb-edu", "cais/mmlu"} <= set(front["datasets"])
    (index,) = front["model-index"]
    found = {
        (one["dataset"]["name"], one["dataset"]["type"]): (
            one["metrics"][0]["type"],
            one["metrics"][0]["value"],
        )
        for one in index["results"]
    }
    assert found["MMLU", "cais/mmlu"] == ("accuracy", 23.99)
    assert found["GSM8K", "gsm8k"] == ("accuracy", 4.47)
    assert found["HumanEval", "openai_humaneval"] == ("pass@1", 6.71)


def test_data_of_the_built_in_world_has_no_real_benchmarks_name():
    records = _records() | {"tasks": {"stage": "tasks", "payload": {"config": {"toy": {"seed": 1}}}}}
    (midtraining,) = [
        stage for stage in training_facts.training_stages(records) if stage["title"] == "Midtraining"
    ]
    assert "99,842 of MMLU (toy world)" in midtraining["data"]


def test_what_is_not_known_of_a_machine_is_left_out():
    machines = [
        {"cpu": "Xeon", "cores": 8, "memory_bytes": None, "gpu": None, "gpus": 0},
        {"cpu": None, "cores": None, "memory_bytes": 2**34, "gpu": "H100", "gpus": 8},
    ]
    records = {
        name: {"stage": name, "provenance": {"hardware": machine}}
        for name, machine in zip("ab", machines, strict=True)
    }
    assert training_facts.hardware(records) == ["Xeon, 8 cores: a", "8 x H100 (16 GiB): b"]
