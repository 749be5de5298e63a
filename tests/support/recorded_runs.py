"""Runs to report on: in memory with any records and files, and in a store as a recipe would leave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.plan import make_plan
from flows.report.recorded_run import RecordedRun
from flows.store import ArtifactFile, Record, Store
from nanochat import recipes

Files = Mapping[str, bytes | Sequence[Mapping[str, Any]]]


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a file of JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def results(tasks: Mapping[str, float], *, problems: int = 63, **metrics: float | None) -> bytes:
    """Return a `results.json` with these accuracies, all tasks with a chance of a quarter."""
    made = {
        name: {"accuracy": value, "baseline": 0.25, "problems": problems} for name, value in tasks.items()
    }
    return json.dumps({"tasks": made, "core": {}, "metrics": metrics}).encode()


class MemoryRun:
    """A run whose records and files are in memory."""

    def __init__(self, name: str = "toy") -> None:
        self._files: dict[str, bytes] = {}
        self.records: dict[str, Record] = {}
        self.run = RecordedRun(name=name, records=self.records, read=lambda file: self._files[file.sha256])

    def add(
        self,
        node: str,
        files: Files,
        metrics: Mapping[str, Any] | None = None,
        *,
        dollars: float | None = None,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Record:
        """Add the record of a node."""
        listed = []
        for path, content in files.items():
            data = content if isinstance(content, bytes) else lines(content)
            listed.append(ArtifactFile(path, len(data), hashlib.sha256(data).hexdigest()))
            self._files[listed[-1].sha256] = data
        made = {"seconds": 61.5, "dollars": dollars, "commit": "c0ffee" * 6, "dirty": False}
        self.records[node] = Record(
            stage=node.split("/")[0],
            node=node,
            key=hashlib.sha256(node.encode()).hexdigest(),
            payload={"config": dict(config or {}), "version": 1},
            files=tuple(f for f in listed if f.path != "throughput.jsonl"),
            attachments=tuple(f for f in listed if f.path == "throughput.jsonl"),
            metrics=metrics or {},
            provenance={**made, "finished_at": "2026-11-28T04:50:47+00:00"},
            inputs=inputs or {},
        )
        return self.records[node]

    def input(self, node: str) -> dict[str, str]:
        """Return how the record of a node stands among the inputs of another."""
        record = self.records[node]
        return {"stage": record.stage, "key": record.key, "digest": record.digest, "node": node}


def trained_run(name: str = "toy", *, better: float = 0.0) -> MemoryRun:
    """Return a run with text, one training and two evaluations; `better` is added to what it scores."""
    made = MemoryRun(name)
    counts = {"documents": 10, "bytes": 410, "tokens": 110}
    made.add("tokenize/shard_00000", {"tokens.bin": b"123"}, counts)
    metrics = [{"step": s, "train/loss": 5 - s / 20} for s in range(1, 64)]
    metrics += [{"step": s, "val/bpb": 2 - s / 63 - better} for s in (21, 42, 63)]
    speeds = [{"step": s, "tokens": 1000 + s, "throughput/tokens_per_s": 1000.0 + s} for s in range(1, 64)]
    samples = [{"step": s, "prompt": "Once <b>upon</b>", "text": f"a time {s}"} for s in (21, 63)]
    made.add(
        "pretrain",
        {"metrics.jsonl": metrics, "throughput.jsonl": speeds, "samples.jsonl": samples},
        {"train/loss": 1.85, "val/bpb": 1.0 - better, "tokens": 65_016, "steps": 63, "parameters": 1_097_728},
        dollars=0.25,
        inputs={"train_tokens": [made.input("tokenize/shard_00000")] * 2},
    )
    for model, accuracy in (("base", 0.25), ("sft", 0.375 + better)):
        files = {"results.json": results({"mmlu": accuracy}, core=None, chatcore=0.1, val_bpb=1.25)}
        made.add(f"evaluate_{model}", files, dollars=0.5, inputs={"model": made.input("pretrain")})
    return made


def kept_run(store: Store, scratch: Path, *overrides: str, files: Mapping[str, Files] | None = None) -> None:
    """Leave in a store what a run of `toy` would: a record of each node, with small files."""
    while missing := [p for p in make_plan(recipes.find("toy", overrides), store).nodes if p.action == "run"]:
        for planned in missing:
            assert planned.key and planned.payload
            folder = scratch / planned.key
            folder.mkdir(parents=True)
            (folder / "made").write_text(planned.key)
            stage = planned.node.stage.name
            for path, content in ((files or {}).get(stage) or {}).items():
                (folder / path).write_bytes(content if isinstance(content, bytes) else lines(content))
            plan = make_plan(recipes.find("toy", overrides), store)
            inputs = {
                name: line(plan.by_id, value)
                if isinstance(value, str)
                else [line(plan.by_id, i) for i in value]
                for name, value in planned.node.inputs.items()
            }
            store.commit(
                stage=stage,
                node=planned.node.id,
                key=planned.key,
                payload=planned.payload,
                folder=folder,
                metrics={"tokens": 10, "steps": 5},
                provenance={"seconds": 1.5, "recipe": "toy", "finished_at": "2026-11-28T04:50:47+00:00"},
                inputs=inputs,
            )


def line(by_id: Mapping[str, Any], node: str) -> dict[str, str]:
    """Return how the record of a planned node stands among the inputs of another."""
    record = by_id[node].record
    return {"stage": record.stage, "key": record.key, "digest": record.digest, "node": node}
