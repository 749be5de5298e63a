"""Stand-ins for stages and their artifacts: the whole DAG without a model in it.

For tests and benchmarks of what goes on around stages: `pretend_to_run` fills a store with records and
runs nothing, `with_stand_in_stages` gives every stage a cheap function that reads its inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

from flows import dag
from flows.plan.key import payload_of
from flows.run.execute import input_summary
from flows.stage import Node
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from nanochat.config import Config, Recipe
from nanochat.data.sources.corpus import Corpus
from nanochat.runtime import Runtime

_WORK_BYTES = bytes(8 << 20)


def pretend_to_run(
    recipe: Recipe, store: Store, folder: Path, *, content: Mapping[str, str] | None = None
) -> None:
    """Commit a small artifact for every node; its bytes depend on what is hashed, or on `content` by node."""
    records: dict[str, Record] = {}
    for node in dag.build(recipe):
        payload = payload_of(node, {i: made.digest for i, made in records.items()})
        key = fingerprint(payload)
        record = store.find(node.stage.name, key)
        if record is None:
            out = folder / key
            out.mkdir()
            (out / "result.txt").write_text((content or {}).get(node.id, key))
            record = store.commit(
                stage=node.stage.name,
                node=node.id,
                key=key,
                payload=payload,
                folder=out,
                inputs=input_summary(_inputs(node, records)),
                provenance={
                    "seconds": 2.0,
                    "finished_at": "2026-01-01T00:00:00+00:00",
                    "recipe": recipe.name,
                },
            )
        records[node.id] = record


def _inputs(node: Node, records: Mapping[str, Record]) -> dict[str, Record | tuple[Record, ...]]:
    return {
        name: records[value] if isinstance(value, str) else tuple(records[i] for i in value)
        for name, value in node.inputs.items()
    }


@contextmanager
def with_stand_in_stages() -> Iterator[None]:
    """Let every node of every recipe be made by `hash_and_write` while the block runs."""
    build = dag.build

    def replaced(recipe: Recipe, corpus: Corpus | None = None) -> tuple[Node, ...]:
        return tuple(
            replace(node, stage=replace(node.stage, run="tests.support.stand_ins:hash_and_write"))
            for node in build(recipe, corpus)
        )

    with mock.patch.object(dag, "build", replaced):
        yield


def hash_and_write(
    config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, float]:
    """Read all inputs, hash some megabytes, write a file that depends on both; about 20 ms."""
    hasher = hashlib.sha256(repr(sorted(config.identity().items())).encode())
    for name in sorted(inputs):
        for path in sorted(inputs[name].glob("**/result.bin")):
            hasher.update(path.read_bytes())
    hasher.update(_WORK_BYTES)
    (out / "result.bin").write_bytes(hasher.digest() * 2048)
    runtime.tracker.log({"train/loss": 1.0}, step=1, total_steps=1)
    return {"bytes": float(len(_WORK_BYTES))}
