"""What a record and its files say about the run that made them, as MLflow is to show it."""

from __future__ import annotations

import json

import pytest

from flows.plan import make_plan
from flows.run.earlier_runs import made_earlier
from flows.store import Record, Store
from flows.store.records import ArtifactFile
from nanochat import recipes

_LINES = {
    "metrics.jsonl": [{"step": 1, "train/loss": 3.5}, {"step": 2, "train/loss": 3.0, "val/bpb": 1.5}],
    "throughput.jsonl": [{"step": 2, "tokens": 64, "seconds": 0.5, "throughput/tokens_per_s": 128.0}],
    "samples.jsonl": [{"step": 2, "prompt": "Once", "text": "upon a time\u2028there"}],
    "config.json": [],
}
_MADE = {"started_at": "2026-01-02T03:04:05+00:00", "finished_at": "2026-01-02T03:04:15+00:00"}


class _Files:
    """A store of which only these files are known."""

    url = "/store"

    def read_bytes(self, file):
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _LINES[file.path]).encode()


@pytest.fixture
def plan(tmp_path):
    return make_plan(recipes.find("toy"), Store.open(str(tmp_path / "store")))


def _record(**provenance):
    files = tuple(ArtifactFile(name, 1, "0" * 64) for name in sorted(_LINES))
    return Record(
        stage="pretrain",
        node="pretrain",
        key="k1",
        payload={},
        files=files,
        metrics={"train/loss": 3.0, "mfu": "unknown", "flag": True},
        provenance={**_MADE, "commit": "c0ffee", "prefect": {"flow_run_id": "f1"}, **provenance},
        inputs={
            "tokenizer": {"stage": "tokenizer", "node": "tokenizer", "key": "k0", "digest": "d0"},
            "shards": [{"stage": "tokenize", "node": "tokenize/a", "key": "ka", "digest": "da"}],
        },
    )


def test_a_training_stage_has_its_curves_samples_inputs_and_times(plan):
    made = made_earlier(plan, _Files(), "pretrain", _record())
    assert made is not None
    assert (made.finished_ms - made.started_ms, made.started_ms) == (10_000, 1767323045000)
    points, texts = made.history()
    assert [
        (p.step, dict(p.numbers), p.time_ms - made.started_ms) for p in points if "train/loss" in p.numbers
    ] == [
        (1, {"train/loss": 3.5}, 5_000),
        (2, {"train/loss": 3.0, "val/bpb": 1.5}, 10_000),
    ]
    assert [dict(p.numbers) for p in points if "train/loss" not in p.numbers] == [
        {"throughput/tokens_per_s": 128.0}
    ]
    assert texts == [(2, "Once → upon a time\u2028there")]
    assert made.metrics == {"train/loss": 3.0}
    assert made.datasets == [
        ("tokenizer", "d0", "/store#tokenizer/k0"),
        ("tokenize/a", "da", "/store#tokenize/ka"),
    ]
    assert made.tags["nanochat.key"] == "k1" and made.tags["prefect.flow_run_id"] == "f1"
    assert made.params == plan.by_id["pretrain"].node.config.identity() and not made.ends_run


def test_a_record_that_does_not_say_when_it_was_made_is_not_shown_as_a_run(plan):
    assert made_earlier(plan, _Files(), "pretrain", _record(finished_at=None)) is None
    assert made_earlier(plan, _Files(), "pretrain", _record(started_at="yesterday")) is None
