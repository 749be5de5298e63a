"""`verify` and `verify --repair` as a person reads them: what is damaged, and what makes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from flows.store.records import blob_name


def put(store: Store, stage: str, *made_from: Record) -> Record:
    folder = Path(store.url).parent / "out" / stage
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(stage.encode() * 100)
    inputs = {r.stage: {"stage": r.stage, "key": r.key, "digest": r.digest} for r in made_from}
    payload = {"stage": stage}
    return store.commit(
        stage=stage, node=stage, key=fingerprint(payload), payload=payload, folder=folder, inputs=inputs,
        provenance={"recipe": "toy"},
    )  # fmt: skip


def flip(store: Store, record: Record) -> None:
    path = Path(store.url, blob_name(record.files[0].sha256))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def verify(store: Store, *options: str):
    return CliRunner().invoke(app, ["verify", "--store", store.url, *options])


def test_what_is_damaged_comes_back_by_the_command_that_is_printed_or_is_said_to_be_lost(store):
    tasks = put(store, "tasks")
    model = put(store, "pretrain", tasks)
    imported = put(store, "import")
    for record in (tasks, model, imported):
        flip(store, record)
    before = verify(store)
    assert before.exit_code == 1 and "3 damaged" in before.stderr and "--repair" in before.stderr
    assert store.find("pretrain", model.key) == model, "only looking changes nothing"
    shown = verify(store, "--repair")
    assert shown.exit_code == 1 and "of which 1 cannot be made again" in shown.stderr
    text = " ".join(shown.stdout.split())
    assert f"pretrain/{model.key[:12]}): `nanochat run toy --until pretrain`" in text
    assert "`nanochat run toy --until tasks` with the overrides of that run fetches it again" in text
    assert f"import/{imported.key[:12]} cannot be made again: import the model again" in text
    assert all(store.find(r.stage, r.key) is None for r in (tasks, model, imported))


def test_repair_as_data_and_what_can_be_made_again_is_no_failure(store):
    model = put(store, "pretrain")
    flip(store, model)
    done = verify(store, "--repair", "--json")
    (finding,) = json.loads(done.stdout)
    assert done.exit_code == 0
    assert finding["done"].startswith("set aside as damaged/") and len(finding["made_again"]) == 1
    assert {"kind", "name", "problem", "used_by"} < finding.keys()
