from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flows.display.report import build_report
from flows.store import ArtifactFile, Record
from nanochat.errors import DataError
from tests.support.d20_records import d20_records


class _RecordIndex:
    """Records with their files in memory."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._files: dict[tuple[str, str], bytes] = {}

    def add(self, node: str, files: dict[str, Any], metrics: dict[str, Any], dollars: float | None) -> None:
        listed = []
        for path, content in files.items():
            data = content if isinstance(content, bytes) else _lines(content)
            self._files[node, path] = data
            listed.append(ArtifactFile(path, len(data), hashlib.sha256(data).hexdigest()))
        self.records[node] = Record(
            stage=node.split("/")[0],
            node=node,
            key=hashlib.sha256(node.encode()).hexdigest(),
            payload={},
            files=tuple(f for f in listed if f.path != "throughput.jsonl"),
            attachments=tuple(f for f in listed if f.path == "throughput.jsonl"),
            metrics=metrics,
            provenance={"seconds": 61.5, "dollars": dollars, "commit": "c0ffee" * 6, "dirty": False},
            inputs={"tokenizer": {"digest": "ab" * 32}, "train_tokens": [{}, {}]},
        )

    def read(self, record: Record, path: str) -> bytes:
        return self._files[record.node, path]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def index() -> _RecordIndex:
    index = _RecordIndex()
    index.add(
        "tokenize/shard_00000", {"tokens.bin": b"123"}, {"documents": 10, "bytes": 410, "tokens": 110}, None
    )
    metrics = [{"step": s, "train/loss": 5 - s / 20} for s in range(1, 64)]
    metrics += [{"step": s, "val/bpb": 2 - s / 63} for s in (21, 42, 63)]
    files = {
        "metrics.jsonl": metrics,
        "throughput.jsonl": [{"step": s, "throughput/tokens_per_s": 1000.0 + s} for s in range(1, 64)],
        "samples.jsonl": [{"step": 63, "prompt": "Once <b>upon</b>", "text": "a time"}],
    }
    index.add("pretrain", files, {"train/loss": 1.85, "val/bpb": 1.0}, 0.25)
    for model, accuracy in (("base", 0.25), ("sft", 0.375)):
        task = {"accuracy": accuracy, "baseline": 0.25, "centered": 0.0, "problems": 63}
        summary = {"core": None, "chatcore": 0.1, "val_bpb": 1.25}
        result = {"model": model, "tasks": {"mmlu": task}, "core": {}, "metrics": summary}
        index.add(f"evaluate_{model}", {"results.json": json.dumps(result).encode()}, {}, 0.5)
    return index


def _body(page: str) -> ElementTree.Element:
    """Return the page as a tree; it is XML apart from its head."""
    return ElementTree.fromstring(page[page.index("<body>") : page.index("</body>") + len("</body>")])


def _rows(page: str) -> list[list[str]]:
    """Return the cells of every table row."""
    return [["".join(cell.itertext()) for cell in row] for row in _body(page).iter("tr")]


def _texts(page: str, tag: str) -> list[str]:
    return ["".join(element.itertext()) for element in _body(page).iter(tag)]


def test_report_shows_stages_benchmarks_corpus_and_lineage(index: _RecordIndex, tmp_path: Path) -> None:
    page = build_report(index.records, index.read, tmp_path / "reports" / "run.html").read_text()
    rows = _rows(page)
    assert ["all", "", "246.0", "1.25", "", ""] in rows
    ours = ["25.00 % (15.96 to 36.92)", "37.50 % (26.59 to 49.85)"]
    assert ["mmlu", "25.00 %", *ours] in rows
    assert ["val_bpb", "", "1.2500", "1.2500"] in rows
    assert ["bytes per token", "4.100"] in rows
    record = index.records["pretrain"]
    made_from = f"tokenizer {'ab' * 6}, train_tokens 2 artifacts"
    assert ["pretrain", record.key[:12], record.digest[:12], made_from, "c0ffeec0ffee"] in rows


def test_scores_of_the_published_recipe_are_beside_the_published_ones(
    index: _RecordIndex, tmp_path: Path
) -> None:
    page = build_report(index.records, index.read, tmp_path / "ours.html").read_text()
    assert "published" not in page
    for made in d20_records():
        index.add(made["node"], {}, {}, None)
        index.records[made["node"]] = replace(index.records[made["node"]], payload=made["payload"], inputs={})
    results = {
        "tasks": {"mmlu": {"accuracy": 0.25, "baseline": 0.25, "problems": 63}},
        "core": {},
        "metrics": {"chatcore": 0.1, "chatcore_of_mmlu": 0.0},
    }
    index.add("evaluate_sft", {"results.json": json.dumps(results).encode()}, {}, None)
    del index.records["evaluate_base"], index.records["evaluate_mid"]
    page = build_report(index.records, index.read, tmp_path / "run.html").read_text()
    rows = _rows(page)
    assert ["benchmark", "chance", "sft", "published", "independent"] in rows
    assert ["mmlu", "25.00 %", "25.00 % (15.96 to 36.92)", "31.51 %", "23.99 %"] in rows
    assert ["chatcore", "", "0.1000", "0.0884", "0.0173"] in rows
    assert ["chatcore_of_mmlu", "", "0.0000 (-0.1206 to 0.1589)", "–", "–"] in rows
    assert "published: nanochat&#39;s README of October 2025" in page


def test_curves_of_loss_bpb_and_throughput_are_drawn(index: _RecordIndex, tmp_path: Path) -> None:
    page = build_report(index.records, index.read, tmp_path / "run.html").read_text()
    assert page.count("<svg") == 1
    for comment in ("pretrain: Training loss", "pretrain: Validation", "pretrain: Throughput"):
        assert f"<!-- {comment} -->" in page
    assert "FLOPs utilization" not in page


def test_page_needs_nothing_from_elsewhere(index: _RecordIndex, tmp_path: Path) -> None:
    page = build_report(index.records, index.read, tmp_path / "run.html").read_text()
    assert "<script" not in page and "src=" not in page and "<link" not in page


def test_hostile_text_is_shown_and_never_part_of_the_page(index: _RecordIndex, tmp_path: Path) -> None:
    evil = "</pre></td><script>alert('1')</script> &amp; \"{{ 7 * 7 }}\""
    metrics = [{"step": 1, "train/loss": 5.0}, {"step": 2, "train/loss": 4.0}]
    files = {"metrics.jsonl": metrics, "samples.jsonl": [{evil: evil}]}
    index.add("pretrain", files, {f"metric {evil}": 1.5}, None)
    task = {evil: {"accuracy": 0.5, "baseline": 0.25, "problems": 4}}
    result = {"tasks": task, "core": task, "metrics": {}}
    index.add("evaluate_base", {"results.json": json.dumps(result).encode()}, {}, None)
    index.add(f"node {evil}", {"samples.jsonl": [{"text": evil}]}, {}, None)
    page = build_report(index.records, index.read, tmp_path / "run.html").read_text()
    assert "<script" not in page
    assert ["pretrain", f"metric {evil}", "1.5"] in _rows(page)
    numbers = ["25.00 %", "50.00 % (15.00 to 85.00)", "–"]
    assert [evil, *numbers] in _rows(page)
    assert [f"{evil} (CORE)", *numbers] in _rows(page)
    assert _rows(page)[-1][0] == f"node {evil}"
    assert _texts(page, "h3") == ["pretrain", f"node {evil}"]
    assert _texts(page, "pre") == [f"{evil}: {evil}", f"text: {evil}"]


def test_what_acts_or_hides_in_a_sample_is_written_as_its_escape(index: _RecordIndex, tmp_path: Path) -> None:
    index.add("sft", {"samples.jsonl": [{"text": "half \ud83d \u202e"}]}, {}, None)
    assert (
        r"text: half \ud83d \u202e"
        in build_report(index.records, index.read, tmp_path / "run.html").read_text()
    )


def test_report_of_a_run_that_stopped_early_says_what_is_not_there(
    index: _RecordIndex, tmp_path: Path
) -> None:
    records = {"tokenize/shard_00000": index.records["tokenize/shard_00000"]}
    page = build_report(records, index.read, tmp_path / "run.html").read_text()
    assert page.count("Nothing of this kind was made.") == 3
    assert ["all", "", "61.5", "unpriced", "", ""] in _rows(page)


def test_same_records_give_the_same_page(index: _RecordIndex, tmp_path: Path) -> None:
    first = build_report(index.records, index.read, tmp_path / "a.html").read_bytes()
    second = build_report(index.records, index.read, tmp_path / "b.html").read_bytes()
    assert first == second


@pytest.mark.parametrize("content", [b"[1, 2", b"[" * 100_000, b"5", b"\xff"])
def test_a_file_that_is_not_lines_of_objects_is_named(
    index: _RecordIndex, tmp_path: Path, content: bytes
) -> None:
    index.add("sft", {"samples.jsonl": content}, {}, None)
    with pytest.raises(DataError, match=r"^sft/[0-9a-f]{12}: .*samples\.jsonl"):
        build_report(index.records, index.read, tmp_path / "run.html")


def test_a_line_without_a_step_or_a_number_is_not_drawn(index: _RecordIndex, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"train/loss": 1.0}, {"step": 1, "train/loss": "x"}, {"step": [2]}]
    index.add("sft", {"metrics.jsonl": lines}, {}, None)
    assert build_report(index.records, index.read, tmp_path / "run.html").is_file()
