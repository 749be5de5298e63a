"""A run is found by its recipe or by a record; what is damaged or gone is named, and the rest is read."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.report.recorded_run import find_run
from flows.report.run_page import write_report
from flows.store import Store
from flows.store.records import blob_name, record_name
from nanochat.errors import ConfigError, StoreError
from tests.support.recorded_runs import kept_run, results

FILES = {
    "pretrain": {"metrics.jsonl": [{"step": s, "train/loss": 5.0 - s} for s in (1, 2, 3)]},
    "evaluate_base": {"results.json": results({"mmlu": 0.25})},
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    opened = Store.open(str(tmp_path / "home" / "store"), cache=tmp_path / "cache")
    kept_run(opened, tmp_path / "made", files=FILES)
    return opened


def _file_of(store, name):
    return store.storage.local_path(name)


def _lose(store, stage, path):
    file = next(f for f in store.resolve(stage).files if f.path == path)
    return _file_of(store, blob_name(file.sha256))


def test_a_recipe_and_its_last_record_name_the_same_run(store):
    by_recipe, by_record = find_run(store, "toy"), find_run(store, "publish")
    assert by_recipe.records == by_record.records and len(by_recipe.records) > 15
    assert by_recipe.name == by_record.name == "toy"
    assert not by_recipe.absent and not by_record.absent and not by_record.problems


def test_the_evaluation_of_a_model_belongs_to_its_run(store):
    found = find_run(store, "pretrain")
    assert "evaluate_base" in found.records and "tasks" in found.records
    assert "sft" not in found.records


def test_other_values_of_a_field_are_another_run(store):
    found = find_run(store, "toy", ["sft.epochs=2"])
    assert "pretrain" in found.records and "sft" not in found.records
    assert "epochs 1 → 2" in found.absent["sft"]
    with pytest.raises(ConfigError, match="no field can be changed"):
        find_run(store, "sft", ["sft.epochs=2"])


def test_names_of_neither_a_recipe_nor_a_record_are_refused_with_the_nearest(store, tmp_path):
    with pytest.raises(ConfigError, match="no recipe and no record 'toi'") as caught:
        find_run(store, "toi")
    assert caught.value.hint == "did you mean 'toy'?"
    with pytest.raises(StoreError, match="no stage of recipe 'toy' is in") as empty:
        find_run(Store.open(str(tmp_path / "none"), cache=tmp_path / "cache"), "toy", ["sft.epochs=2"])
    assert empty.value.hint == "run it: nanochat run toy -o sft.epochs=2"


@pytest.mark.parametrize("name", ["toy", "publish"])
def test_a_file_that_is_gone_is_named_and_the_rest_is_there(store, tmp_path, name):
    _lose(store, "pretrain", "metrics.jsonl").unlink()
    found = find_run(store, name)
    assert (
        len(found.problems) == 1
        and "missing, or not of the recorded size: metrics.jsonl" in found.problems[0]
    )
    assert {"pretrain", "sft", "publish"} <= found.records.keys()
    page = write_report(found, tmp_path / "run.html").read_text()
    assert "metrics.jsonl cannot be read" in page and "25.00 %" in page


def test_bytes_that_are_not_what_was_recorded_are_named(store, tmp_path):
    blob = _lose(store, "pretrain", "metrics.jsonl")
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"4.0", b"9.0"))
    page = write_report(find_run(store, "toy"), tmp_path / "run.html").read_text()
    assert "metrics.jsonl cannot be read" in page and "Training loss over" not in page


@pytest.mark.parametrize("name", ["toy", "publish"])
@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_record_that_is_lost_is_named_and_what_was_made_from_it_is_there(store, name, how):
    record = store.resolve("midtrain")
    file = _file_of(store, record_name("midtrain", record.key))
    file.chmod(0o644)
    file.write_text("{}") if how == "damaged" else file.unlink()
    found = find_run(store, name)
    assert {"sft", "evaluate_mid", "publish"} <= found.records.keys()
    (reason,) = found.absent.values()
    assert (
        "is damaged" if how == "damaged" else "gone" if name == "publish" else "not in this store"
    ) in reason


def test_the_command_writes_a_page_and_says_what_is_damaged(store, tmp_path):
    _lose(store, "pretrain", "metrics.jsonl").unlink()
    out = CliRunner().invoke(app, ["report", "publish", "--store", store.url])
    assert out.exit_code == 0
    written = tmp_path / "home" / "reports" / "publish.html"
    assert out.stdout.strip() == str(written) and written.is_file()
    assert "warning: pretrain/" in out.stderr
    assert json.dumps("toy") not in out.stdout
