from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flows.cli.diff_tables import difference_tables
from flows.report.difference_page import write_difference
from flows.report.difference_text import as_json
from flows.report.run_difference import difference_of
from flows.report.run_page import write_report
from nanochat.errors import ConfigError
from tests.support.d20_records import d20_records
from tests.support.recorded_runs import MemoryRun, results, trained_run


class _Reader(HTMLParser):
    """Collects table rows, the texts of elements, ids and links; notes what was never closed."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, list[str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append((tag, []))
        if tag == "a":
            self.links.append((str(given.get("href")), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        for _, parts in self.open:
            parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        opened, parts = self.open.pop()
        assert opened == tag
        text = "".join(parts).strip()
        self.texts.setdefault(tag, []).append(text)
        if tag in ("td", "th"):
            self.rows[-1].append(" ".join(text.split()))
        if tag == "a":
            self.links[-1] = (self.links[-1][0], text)


def _page(made: MemoryRun, folder: Path) -> str:
    return write_report(made.run, folder / "reports" / "run.html").read_text(encoding="utf-8")


def test_a_report_has_headline_costs_scores_data_and_lineage(tmp_path: Path) -> None:
    made = trained_run()
    page = _page(made, tmp_path)
    read = _Reader(page)
    assert read.texts["h1"] == ["toy"]
    ours = ["25.00 % (15.96 to 36.92)", "37.50 % (26.59 to 49.85)"]
    assert ["mmlu", "25.00 %", *ours] in read.rows
    assert ["Validation bits per byte", "", "1.2500", "1.2500"] in read.rows
    assert ["pretrain", "1 min 02 s", "$0.25"] in read.rows
    assert ["all", "4 min 06 s", "$1.25"] in read.rows
    assert ["training text", "1", "10", "410 B", "110", "4.100"] in read.rows
    assert made.records["pretrain"].digest in read.texts["code"]
    assert "code c0ffeec0ffee" in page and "train_tokens (2)" in page


def test_each_number_leads_to_a_record_on_the_page(tmp_path: Path) -> None:
    made = trained_run()
    read = _Reader(_page(made, tmp_path))
    anchor = f"#record-evaluate_sft-{made.records['evaluate_sft'].key[:12]}"
    assert (anchor, "37.50 %") in read.links
    assert (f"#record-pretrain-{made.records['pretrain'].key[:12]}", "1.0000") in read.links
    assert len(set(read.ids)) == len(read.ids)
    assert {href for href, _ in read.links} <= {f"#{name}" for name in read.ids}


def test_a_stage_of_hundreds_of_records_shows_a_few_in_full(tmp_path: Path) -> None:
    made = trained_run()
    for number in range(1, 300):
        made.add(
            f"tokenize/shard_{number:05d}", {"tokens.bin": b"1"}, {"documents": 1, "bytes": 2, "tokens": 3}
        )
    page = _page(made, tmp_path)
    assert page.count("<pre ") < 20 and len(page) < 500_000
    read = _Reader(page)
    assert {href for href, _ in read.links} <= {f"#{name}" for name in read.ids}
    assert all(record.digest in page for record in made.records.values())


def test_scores_of_the_published_recipe_are_beside_the_published_ones(tmp_path: Path) -> None:
    made = trained_run()
    assert "published" not in _page(made, tmp_path)
    for each in d20_records():
        made.add(each["node"], {})
        made.records[each["node"]] = replace(made.records[each["node"]], payload=each["payload"], inputs={})
    made.add("evaluate_sft", {"results.json": results({"mmlu": 0.25}, chatcore=0.1, chatcore_of_mmlu=0.0)})
    del made.records["evaluate_base"], made.records["evaluate_mid"]
    page = _page(made, tmp_path)
    rows = _Reader(page).rows
    assert ["benchmark", "chance", "sft", "published", "independent"] in rows
    assert ["mmlu", "25.00 %", "25.00 % (15.96 to 36.92)", "31.51 %", "23.99 %"] in rows
    assert ["ChatCORE", "", "0.1000", "0.0884", "0.0173"] in rows
    assert ["ChatCORE (of mmlu)", "", "0.0000 (-0.1206 to 0.1589)", "–", "–"] in rows
    assert "published: nanochat&#39;s README of October 2025" in page
    assert (
        "mmlu: sft 25.00 % (15.96 to 36.92); published 31.51 %; independent 23.99 %; chance 25.00 %." in page
    )


def test_curves_are_over_tokens_and_have_units(tmp_path: Path) -> None:
    page = _page(trained_run(), tmp_path)
    assert page.count('role="img"') == 3 + 2  # curves; mmlu, and the mean over tasks
    assert page.count("tokens trained on</p>") == 3
    for unit in ("nats per token", "bits per byte", "tokens per second"):
        assert f'<p class="unit">{unit}</p>' in page
    assert "Validation over tokens trained on. val/bpb: 1.667 at first, 1 at the end." in page


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    page = _page(trained_run(), tmp_path)
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|@import|https?://|style=| on\w+=", page)
    assert "default-src 'none'; style-src 'sha256-" in page


EVIL = "</pre></td></title></style><script>alert('1')</script> ]]> &amp; \"{{ 7 * 7 }}\" {% raw %}"


def test_hostile_text_is_shown_and_never_part_of_the_page(tmp_path: Path) -> None:
    made = trained_run(EVIL)
    metrics: list[dict[str, Any]] = [{"step": 1, f"train/{EVIL}": 5.0}, {"step": 2, "train/loss": 4.0}]
    samples = [{EVIL: EVIL}, {"step": EVIL, "prompt": EVIL, "text": EVIL}]
    made.add(
        "pretrain",
        {"metrics.jsonl": metrics, "samples.jsonl": samples},
        {f"metric {EVIL}": 1.5, "notes": [EVIL]},
    )
    made.add("evaluate_base", {"results.json": results({EVIL: 0.5}, **{EVIL: 0.5})})
    made.add("publish", {}, config={"title": EVIL})
    made.add(f"render/{EVIL}", {"samples.jsonl": [{"text": EVIL}]}, {"rows": {EVIL: {"used": 3}}})
    page = _page(made, tmp_path)
    read = _Reader(page)
    assert "script" not in read.texts
    assert read.texts["h1"] == [EVIL]
    assert EVIL in [row[0] for row in read.rows] and f"metric {EVIL}" in [row[0] for row in read.rows]
    assert [text for text in read.texts["p"] if text == EVIL] == [EVIL] * 3  # asked, and said twice
    assert f"{EVIL}: {EVIL}" in read.texts["p"]


def test_what_acts_or_hides_in_a_sample_is_written_as_its_escape(tmp_path: Path) -> None:
    made = MemoryRun("r\u202eun")
    made.add("sft", {"samples.jsonl": [{"text": "half \ud83d \u202e"}]})
    page = _page(made, tmp_path)
    assert r"half \ud83d \u202e" in page and r"r\u202eun" in page


def test_a_run_that_stopped_early_gives_a_report_of_what_is_there(tmp_path: Path) -> None:
    made = trained_run()
    for node in ("pretrain", "evaluate_base", "evaluate_sft"):
        del made.records[node]
    made.run.absent = {"pretrain": "not in this store yet", "sft": "waits for pretrain"}
    page = _page(made, tmp_path)
    assert "<li><b>pretrain</b>: not in this store yet</li>" in page
    for said in ("Nothing was trained yet.", "Nothing was evaluated yet.", "No samples were kept."):
        assert said in page
    assert "No price per hour was set" in page


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    assert _page(trained_run(), tmp_path / "a") == _page(trained_run(), tmp_path / "b")


@pytest.mark.parametrize("content", [b"[1, 2", b"[" * 100_000, b"5", b"\xff"])
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path, content: bytes) -> None:
    made = trained_run()
    made.add("sft", {"samples.jsonl": content, "metrics.jsonl": [{"step": 1, "train/loss": 3.0}]})
    made.add("evaluate_base", {"results.json": content})
    page = _page(made, tmp_path)
    assert re.search(r"<li>sft/[0-9a-f]{12}: 1 of 1 lines of samples\.jsonl cannot be read</li>", page)
    assert re.search(r"<li>evaluate_base/[0-9a-f]{12}: results\.json is not the results", page)
    assert "37.50 %" in page and "Training loss over" in page


def test_a_bad_line_or_number_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    made = MemoryRun()
    bad: list[dict[str, Any]] = [{"train/loss": 1.0}, {"step": 1, "train/loss": "x"}, {"step": [2]}]
    bad += [{"step": 3, "train/loss": float("nan")}, {"step": 4, "train/loss": float("inf")}]
    made.add("sft", {"metrics.jsonl": [*bad, {"step": 5, "train/loss": 2.0}]})
    page = _page(made, tmp_path)
    assert "2 numbers of its curves are not finite" in page
    assert "Training loss over steps. train/loss: 2 at first, 2 at the end." in page


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "toy.html"
    for _ in range(2):
        write_report(MemoryRun().run, target)
    target.write_text("<!doctype html><title>my thesis</title>")
    for place in (target, tmp_path):
        with pytest.raises(ConfigError, match="exists and is not a report"):
            write_report(MemoryRun().run, place)
    assert "my thesis" in target.read_text()


def test_credentials_in_a_text_are_not_on_the_page(tmp_path: Path) -> None:
    made = MemoryRun()
    made.add("sft", {"samples.jsonl": [{"prompt": "s3://key:secret@bucket/x", "text": "?token=abcdef&a=b"}]})
    page = _page(made, tmp_path)
    assert "secret" not in page and "abcdef" not in page
    assert "s3://bucket/x" in page and "&amp;a=b" in page


ODD: list[Any] = [None, True, "x", "\ud800<b>", [], [1, [2]], {}, {"a": {"b": [None]}}, -3, 0, 10**400, 1e308]


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_whatever_a_record_holds_gives_a_page(tmp_path: Path, value: Any) -> None:
    made = trained_run()
    for node, record in made.records.items():
        names = (
            "tokens",
            "val/bpb",
            "train/loss",
            "parameters",
            "flops",
            "steps",
            "rows",
            "notes",
            "bytes",
            "mfu",
        )
        metrics = {**dict.fromkeys(names, value), "documents": 3}
        surroundings = {"versions": value, "hardware": {"gpu": value, "cpu": value}, "device": value}
        made.records[node] = replace(
            record,
            metrics=metrics,
            payload={
                "config": {"model": value, "title": value, "mixture": [{"task": value}]},
                "version": value,
            },
            provenance={**record.provenance, **surroundings},
        )
    made.add("render/sft", {}, {"rows": {"mmlu": value}})
    assert "</html>" in _page(made, tmp_path)
    found = difference_of(("a", "b"), trained_run().run, made.run)
    assert "</html>" in write_difference(found, tmp_path / "diff.html").read_text()
    assert list(difference_tables(found)) and json.dumps(as_json(found))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -7.0])
def test_whatever_a_mean_is_gives_a_page(tmp_path: Path, value: float) -> None:
    made = trained_run()
    made.add("evaluate_sft", {"results.json": results({"mmlu": 0.5}, chatcore=value, val_bpb=value)})
    page = _page(made, tmp_path)
    assert "50.00 %" in page and "nan%" not in page and "inf%" not in page
