from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nanochat.config import CardConfig, CitationConfig, EvaluateConfig, ModelConfig, PublishConfig
from nanochat.errors import DataError
from nanochat.evals.contamination.overlap import FILE_NAME, Overlap, TaskOverlap
from nanochat.evals.protocol import protocol
from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle
from nanochat.model.checkpoint import load_model, save_model
from nanochat.model.gpt import GPT
from nanochat.publish.publish import publish
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer
from tests.support.d20_records import d20_records

_TITLES = {"pretrain": "Pretraining", "midtrain": "Midtraining", "sft": "Supervised fine-tuning"}
_COMMIT = "0123456789abcdef"
_TOKENIZED = {"documents": 10, "bytes": 410, "tokens": 110}
_CONFIG = PublishConfig(title="tiny", datasets=("nanochat/toy",))


def _task(accuracy: float, baseline: float = 0.25) -> dict[str, Any]:
    centered = (accuracy - baseline) / (1 - baseline)
    return {"accuracy": accuracy, "baseline": baseline, "centered": centered, "problems": 63, "of": 63}


def _results(model: str, accuracy: float) -> dict[str, Any]:
    chat = model != "base"
    return {
        "model": model,
        "tasks": {"mmlu": _task(accuracy), "gsm8k": _task(0.125, 0.0)} if chat else {},
        "core": {} if chat else {"hellaswag": _task(0.3125)},
        "metrics": {"chatcore" if chat else "core_of_hellaswag_63_each": 0.2, "val_bpb": 1.2345},
        "protocol": protocol(EvaluateConfig(), with_core=not chat),
    }


def _record(
    node: str, metrics: Mapping[str, Any], seconds: float, dollars: float | None, model: str = "pretrain"
) -> dict[str, Any]:
    hardware = {"cpu": "Test CPU", "cores": 3, "memory_bytes": 7 * 2**30, "gpu": None, "gpus": 0}
    return {
        "stage": node.split("/")[0],
        "node": node,
        "key": hashlib.sha256(node.encode()).hexdigest(),
        "digest": hashlib.sha256(b"x" + node.encode()).hexdigest(),
        "metrics": metrics,
        "title": _TITLES.get(node, ""),
        "inputs": {"model": {"node": model}} if node in ("midtrain", "sft") else {},
        "provenance": {
            "seconds": seconds,
            "dollars": dollars,
            "commit": _COMMIT,
            "dirty": node == "sft",
            "hardware": hardware,
        },
    }


def _lineage(folder: Path, dollars: float | None = None, dropped: int | None = None) -> None:
    folder.mkdir(exist_ok=True)
    trained = {"steps": 63, "tokens": 123_456, "train/loss": 2.71828, "flops": 1.5e12}
    left_out = {} if dropped is None else {"dropped_documents": dropped}
    records = [
        _record("tokenize/shard_00000", {**_TOKENIZED, **left_out}, 1.5, None),
        _record("pretrain", {**trained, "val/bpb": 1.4142}, 3661.0, dollars),
        _record("sft", {**trained, "val/loss": 1.0101}, 30.0, dollars),
    ]
    for record in records:
        path = folder / f"{record['node'].replace('/', '__')}.json"
        path.write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    names = (
        "tokenizer",
        "model",
        "evaluate_base",
        "evaluate_mid",
        "evaluate_sft",
        "contamination",
        "lineage",
    )
    folders = {name: tmp_path / name for name in names}
    for folder in folders.values():
        folder.mkdir()
    tokenizer = _tokenizer()
    tokenizer.save(folders["tokenizer"])
    config = ModelConfig(
        sequence_len=63, vocab_size=tokenizer.vocab_size, n_layer=3, n_head=3, n_kv_head=3, n_embd=24
    )
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(1))
    save_model(folders["model"], model)
    rows = [{"step": 1, "val/loss": 2.0}, {"step": 62, "val/loss": 1.5}, {"step": 63, "train/loss": 1.0}]
    (folders["model"] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, accuracy in (("base", 0.25), ("mid", 0.3), ("sft", 0.3125)):
        path = folders[f"evaluate_{name}"] / "results.json"
        path.write_text(json.dumps(_results(name, accuracy)))
    _overlaps(folders["contamination"])
    _lineage(folders["lineage"])
    return folders


def _overlaps(folder: Path) -> None:
    """Write what was found in two shards: MMLU's item 7 in both."""
    for shard, items in enumerate(((3, 7), (7, 62))):
        (folder / f"{shard:05d}").mkdir()
        Overlap(
            ngram_words=13,
            shards=1,
            documents=1000,
            overlapping_documents=2 + shard,
            tasks={"mmlu": TaskOverlap(items=1063, too_short=63, overlapping=items)},
            core={"dyck": TaskOverlap(items=63, too_short=63, overlapping=())},
        ).write(folder / f"{shard:05d}" / FILE_NAME)


def _tokenizer() -> Tokenizer:
    names = ("bos", "user_start", "user_end", "assistant_start", "assistant_end")
    names += ("python_start", "python_end", "output_start", "output_end")
    ranks = {bytes([i]): i for i in range(256)} | {b"he": 256, b"ll": 257}
    return Tokenizer(ranks, {f"<|{name}|>": 258 + i for i, name in enumerate(names)}, r"\p{L}+|\P{L}+")


def _publish(inputs: Mapping[str, Path], out: Path, config: PublishConfig = _CONFIG) -> dict[str, Any]:
    out.mkdir()
    return dict(publish(config, inputs, out, Runtime(threads=1)))


def test_folder_has_upstreams_files_and_names_the_last_step(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = _publish(inputs, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "generate_cpu.py",
        "meta_000063.json",
        "model_000063.pt",
        "results.json",
        "token_bytes.pt",
        "tokenizer.pkl",
    ]
    assert metrics["step"] == 63
    meta = json.loads((tmp_path / "out" / "meta_000063.json").read_text())
    assert meta["step"] == 63 and meta["val_loss"] == 1.5 and meta["mmlu_acc"] == 0.3125
    assert set(meta["model_config"]) == {
        "sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"
    }  # fmt: skip


def test_weights_are_the_models_in_float32(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = _publish(inputs, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "model_000063.pt", weights_only=True)
    expected = load_model(inputs["model"]).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert {weight.dtype for weight in state.values()} == {torch.float32}
    assert metrics["parameters"] == sum(weight.numel() for weight in state.values())


def test_tokenizer_files_give_the_same_ids(inputs: dict[str, Path], tmp_path: Path) -> None:
    _publish(inputs, tmp_path / "out")
    ours, published = (
        Tokenizer.load(inputs["tokenizer"]),
        load_tokenizer_pickle(tmp_path / "out" / "tokenizer.pkl"),
    )
    messages: Any = [{"role": "user", "content": "hello <|bos|> ünï"}]
    assert render_for_completion(ours, messages) == render_for_completion(published, messages)
    upstream = pickle.loads((tmp_path / "out" / "tokenizer.pkl").read_bytes())
    assert upstream.encode_ordinary("hello you") == ours.encode("hello you")


def test_publishing_twice_gives_the_same_bytes_but_for_the_card(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _publish(inputs, tmp_path / "a")
    _lineage(inputs["lineage"], dollars=3.0)
    _publish(inputs, tmp_path / "somewhere_else")
    for path in sorted((tmp_path / "a").iterdir()):
        same = path.read_bytes() == (tmp_path / "somewhere_else" / path.name).read_bytes()
        assert same == (path.name != "README.md"), path.name


def _card(out: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_lists_every_benchmark_in_the_hubs_schema(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _publish(inputs, tmp_path / "out")
    front, _ = _card(tmp_path / "out")
    assert front["license"] == "mit" and front["datasets"] == ["nanochat/toy"] and front["language"] == ["en"]
    (index,) = front["model-index"]
    assert index["name"] == "tiny"
    found = {entry["dataset"]["name"]: entry["metrics"][0] for entry in index["results"]}
    assert {name: metric["value"] for name, metric in found.items()} == {
        "MMLU": 31.25,
        "GSM8K": 12.5,
        "ChatCORE": 0.2,
        "Validation bits per byte": 1.2345,
    }
    for entry in index["results"]:
        assert entry["task"]["type"] and entry["dataset"]["type"] and entry["metrics"][0]["type"]


def test_card_tells_stages_benchmarks_and_lineage_from_records(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _publish(inputs, tmp_path / "out")
    _, body = _card(tmp_path / "out")
    lines = body.splitlines()
    assert "| Pretraining | 63 | 123,456 | 1.50e+12 | 2.7183 | 1.4142 (val/bpb) | 1:01:01 |" in lines
    mid, sft = "30.00 % (20.10 to 42.20)", "31.25 % (21.16 to 43.49)"
    about = "questions of 57 subjects, from law to anatomy"
    assert f"| MMLU | 25.00 % | – | {mid} | {sft} | {about} |" in lines
    at = lines.index("| task | chance | base |")
    assert lines[at + 1 : at + 3] == ["|---|---:|---:|", f"| hellaswag | 25.00 % | {sft} |"]
    assert "10 documents, 410 bytes, 110 tokens" in body and "(4.100 bytes per token)" in body
    record = json.loads((inputs["lineage"] / "tokenize__shard_00000.json").read_text())
    row = f"| tokenize/shard_00000 | `{record['key'][:12]}` | `{record['digest']}` | 0123456789ab |"
    assert row in lines
    assert any(line.endswith("| 0123456789ab with local changes |") for line in lines)
    assert "- Test CPU, 3 cores, 7 GiB: pretrain, sft, tokenize" in lines
    assert "CORE (of hellaswag 63 each): of a part of the problems" in body
    assert "- calculator (exact, version 1): " in body and "`//` has no value" in body.replace("\\`", "`")
    assert lines.count("- written answers: the likeliest token each time, at most 512 tokens") == 1
    assert "- core problems: all" in lines and any(
        line.startswith("- core (dclm, version 1)") for line in lines
    )


def test_card_of_the_published_recipe_has_the_published_scores_beside_its_own(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    sft = "31.25 % (21.16 to 43.49)"
    for name, overrides, others in (
        ("published", (), " 31.51 % | 23.99 % |"),
        ("changed", ("sft.epochs=2",), ""),
    ):
        for made in d20_records(*overrides):
            record = {**_record(made["node"], {}, 1.0, None), **made, "inputs": {}}
            path = inputs["lineage"] / f"{made['node'].replace('/', '__')}.json"
            path.write_text(json.dumps(record), encoding="utf-8")
        _publish(inputs, tmp_path / name)
        lines = _card(tmp_path / name)[1].splitlines()
        (mmlu,) = [line for line in lines if line.startswith("| MMLU |") and "subjects" in line]
        assert f"| {sft} |{others} questions of 57 subjects" in mmlu
        source = "- independent: the model card of sdobson/nanochat on the Hugging Face hub"
        assert (source in lines) == bool(others)


def test_only_whole_benchmarks_are_in_the_front_matter(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = inputs["evaluate_sft"] / "results.json"
    results = json.loads(path.read_text())
    results["tasks"]["mmlu"]["of"] = 14_042
    results["metrics"] = {"chatcore_of_gsm8k_mmlu_63_each": 0.1, "val_bpb": 1.2345}
    path.write_text(json.dumps(results))
    _publish(inputs, tmp_path / "out")
    front, body = _card(tmp_path / "out")
    named = [entry["dataset"]["name"] for entry in front["model-index"][0]["results"]]
    assert named == ["GSM8K", "Validation bits per byte"]
    assert "| ChatCORE (of gsm8k mmlu 63 each) |" in body


def test_card_shows_foreign_text_as_text(inputs: dict[str, Path], tmp_path: Path) -> None:
    record = _record("tokenize/a|b\x1b[2J<img>", _TOKENIZED, 1.0, None)
    (inputs["lineage"] / "tokenize__odd.json").write_text(json.dumps(record), encoding="utf-8")
    odd = "---\n<script>alert(1)</script> | *a* _b_ c_d `e` ~~f~~ $g$ &lt;"
    card = CardConfig(
        developed_by=odd,
        uses=("---", "1. x", "# y", "> z"),
        citation=CitationConfig(author='A } @misc{b, "c"\n```', title="{t}"),
    )
    config = PublishConfig(title="a\u202e\n[b](http://x)", datasets=("`c`", "cais/mmlu"), card=card)
    _publish(inputs, tmp_path / "out", config)
    front, body = _card(tmp_path / "out")
    lines = body.splitlines()
    assert front["datasets"] == ["cais/mmlu"] and "Data sets: \\`c\\`, cais/mmlu." in lines
    assert body.startswith("\n# a\\u202e \\[b\\](http://x)\n")
    assert r"| tokenize/a\|b\x1b\[2J\<img\> |" in body
    shown = r"\--- \<script\>alert(1)\</script\> \| \*a\* \_b\_ c_d \`e\` \~\~f\~\~ \$g\$ \&lt;"
    assert f"- **Developed by:** {shown}" in lines
    at = lines.index("### Direct use")
    assert lines[at + 2 : at + 6] == [r"- \---", r"- 1\. x", r"- \# y", r"- \> z"]
    at = lines.index("@software{nanochat2025,")
    assert lines[at + 1 : at + 3] == ["  author = {A @miscb, c},", "  title = {t},"]


def test_front_matter_is_what_the_hubs_own_reader_reads(inputs: dict[str, Path], tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = CardConfig(languages=("en", "de"), base_model="someone/base")
    title = "a: b --- | {c} #d"
    _publish(inputs, tmp_path / "out", PublishConfig(title=title, card=card))
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.language, data.base_model, data.pipeline_tag) == (
        ["en", "de"],
        "someone/base",
        "text-generation",
    )
    assert data.model_name == title
    found = {(one.dataset_type, one.dataset_config, one.dataset_split): one for one in data.eval_results}
    assert found["cais/mmlu", "all", "test"].metric_value == 31.25
    assert found["gsm8k", "main", "test"].metric_type == "accuracy"


@pytest.mark.parametrize("text", ["a\n---\nb: c", "a --- " * 40 + "b"], ids=["lines", "long"])
def test_no_line_of_the_front_matter_looks_like_its_end(
    inputs: dict[str, Path], tmp_path: Path, text: str
) -> None:
    _publish(inputs, tmp_path / "out", PublishConfig(title=text, license=text))
    front, _ = _card(tmp_path / "out")
    assert front["license"] == front["model-index"][0]["name"] == " ".join(text.split())
    lines = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line.strip()[:3] for line in lines].count("---") == 2


def test_links_lead_where_the_recipe_says(inputs: dict[str, Path], tmp_path: Path) -> None:
    links = ("https://example.org/~user/*a*?b=1&c=2", "https://example.org/__init__.py#L1|$x$")
    config = PublishConfig(card=CardConfig(links=links, repository=f"{links[0]}&d=`3`"))
    _publish(inputs, tmp_path / "out", config)
    lines = _card(tmp_path / "out")[1].splitlines()
    assert [f"- <{link}>" for link in links] == [line for line in lines if line.startswith("- <")]
    assert f"- **Repository:** <{links[0]}&d=`3`>" in lines


def test_card_of_a_model_without_a_license_names_none(inputs: dict[str, Path], tmp_path: Path) -> None:
    _publish(inputs, tmp_path / "out", PublishConfig(license=" "))
    front, body = _card(tmp_path / "out")
    assert "license" not in front and "License" not in body
    assert "\nWhat each stage made, in digests of its bytes:\n" in body


def test_card_lists_the_trainings_in_the_order_in_which_each_took_up_the_model_of_the_one_before(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    for record in (_record("midtrain", {}, 1.0, None), _record("sft", {}, 1.0, None, model="midtrain")):
        (inputs["lineage"] / f"{record['node']}.json").write_text(json.dumps(record), encoding="utf-8")
    _publish(inputs, tmp_path / "out")
    titles = [line.split(" | ")[0] for line in _card(tmp_path / "out")[1].splitlines()]
    rows = [title.removeprefix("| ") for title in titles if title.removeprefix("| ") in _TITLES.values()]
    assert rows == ["Pretraining", "Midtraining", "Supervised fine-tuning"]


def test_cost_is_said_to_be_unknown_where_no_price_was_set(inputs: dict[str, Path], tmp_path: Path) -> None:
    _publish(inputs, tmp_path / "unpriced")
    assert "Unpriced: no price per hour" in _card(tmp_path / "unpriced")[1]
    _lineage(inputs["lineage"], dollars=3.0)
    _publish(inputs, tmp_path / "priced")
    assert "$6.00; 1 of 3 executions are unpriced." in _card(tmp_path / "priced")[1]


def test_card_and_results_tell_which_benchmark_items_are_in_the_training_text(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _publish(inputs, tmp_path / "out")
    lines = _card(tmp_path / "out")[1].splitlines()
    assert "| MMLU | 1,063 | 1,000 | 3 | 0.30 % |" in lines
    assert "| dyck (CORE) | 63 | 0 | 0 | – |" in lines
    at = lines.index("5 of 2,000 documents in 2 training shards overlap;")
    assert lines[at + 1] == "none was left out of pretraining."
    found = json.loads((tmp_path / "out" / "results.json").read_text())["contamination"]
    assert found["tasks"]["mmlu"]["overlapping"] == [3, 7, 62]
    assert (found["documents"], found["overlapping_documents"], found["shards"]) == (2000, 5, 2)


@pytest.mark.parametrize("dropped", [0, 5])
def test_card_tells_how_many_documents_were_left_out(
    inputs: dict[str, Path], tmp_path: Path, dropped: int
) -> None:
    _lineage(inputs["lineage"], dropped=dropped)
    _publish(inputs, tmp_path / "out")
    assert f"\n{dropped} were left out of pretraining.\n" in _card(tmp_path / "out")[1]


def test_model_without_metrics_is_an_error_that_names_the_file(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    (inputs["model"] / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match=r"metrics\.jsonl is missing"):
        _publish(inputs, tmp_path / "out")
