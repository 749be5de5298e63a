"""The tracker against real MLflow: a local database, a closed port, and a server that never answers.

Importing MLflow and creating its tables takes longer than ten seconds, hence `slow`.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanochat.sqlite_urls import sqlite_path, sqlite_url
from nanochat.tracking import History, Made, PipelineTracker, Point, PublishedModel, mlflow_sink, run_tags
from nanochat.tracking import pipeline_tracker as tracking

pytestmark = pytest.mark.slow

_DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home") / "a b 100%25 #1 Größe 日本 why?x=1&y;"
    return sqlite_url(home / "mlflow.db")


@pytest.fixture(scope="module")
def client(uri: str) -> Iterator[Any]:
    """A tracker's whole life, written down; then MLflow's own client on the same database."""
    tracker = PipelineTracker(uri, patience_s=300.0)
    tracker.start_run("toy", {"recipe": {"depth": 4}}, run_tags(flow_run_id="flow-1"))
    stage = tracker.stage(
        "pretrain",
        tags=run_tags(key="k1", commit="c0ffee", task_run_id="task-1"),
        params={"model": {"n_layer": 4}, "steps": 3, "prompts": ()},
        datasets=[("tokenizer", _DIGEST, "s3://bucket/blobs/ab"), ("val_tokens", "cd" * 32, "/store")],
    )
    for step in range(3):
        stage.log({"train/loss": 3.0 - step, "val/bpb": float("nan")}, step=step, total_steps=3)
    stage.log_text("Once upon a time", step=2)
    stage.log_text("The end", step=2)
    tracker.finish_stage(stage, "FINISHED", {"seconds": 12.5, "note": "text"}, run_tags(digest="d1"))
    tracker.cached("tokenizer", record_tags=run_tags(key="k2", made_by_run="old"), metrics={"vocab": 512})
    failed = tracker.stage("sft", tags={}, params={})
    tracker.finish_stage(failed, "FAILED")
    tracker.stage("publish", tags={}, params={})  # still open when the run ends
    tracker.close("FAILED")
    assert not tracker.abandoned and not tracker.disabled and tracker.errors == tracker.dropped == 0

    from mlflow import MlflowClient

    yield MlflowClient(tracking_uri=uri)


def _runs(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("nanochat")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_each_stage_is_a_run_below_the_pipelines_run(client: Any) -> None:
    runs = _runs(client)
    assert set(runs) == {"toy", "pretrain", "tokenizer", "sft", "publish"}
    parent = runs["toy"].info.run_id
    children = [run for name, run in runs.items() if name != "toy"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    assert runs["toy"].data.params["recipe.depth"] == "4"


def test_status_of_each_run_is_how_it_ended(client: Any) -> None:
    status = {name: run.info.status for name, run in _runs(client).items()}
    assert status == {
        "toy": "FAILED",
        "pretrain": "FINISHED",
        "tokenizer": "FINISHED",
        "sft": "FAILED",
        "publish": "FAILED",
    }


def test_metrics_keep_their_steps(client: Any) -> None:
    run = _runs(client)["pretrain"]
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert run.data.metrics["seconds"] == 12.5 and "note" not in run.data.metrics


def test_tags_tell_key_digest_commit_and_prefect_runs(client: Any) -> None:
    runs = _runs(client)
    tags = runs["pretrain"].data.tags
    assert {name: tags[name] for name in tags if not name.startswith("mlflow.")} == {
        "cache.status": "executed",
        "nanochat.key": "k1",
        "nanochat.digest": "d1",
        "prefect.task_run_id": "task-1",
    }
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert runs["toy"].data.tags["prefect.flow_run_id"] == "flow-1"


def test_a_hit_links_to_the_run_that_made_it(client: Any) -> None:
    run = _runs(client)["tokenizer"]
    assert run.data.tags["cache.status"] == "cached"
    assert run.data.tags["nanochat.made_by_run"] == "old"
    assert run.data.metrics == {"vocab": 512.0}


def test_input_artifacts_carry_their_whole_digest(client: Any) -> None:
    inputs = _runs(client)["pretrain"].inputs.dataset_inputs
    found = {i.dataset.name: ({t.key: t.value for t in i.tags}, i.dataset) for i in inputs}
    tags, dataset = found["tokenizer"]
    assert tags["nanochat.digest"] == _DIGEST and _DIGEST.startswith(dataset.digest)
    assert dataset.source_type == "s3" and "s3://bucket/blobs/ab" in dataset.source
    assert found["val_tokens"][1].source_type == "local"


def test_every_sample_of_a_step_is_kept_beside_the_database(client: Any, uri: str) -> None:
    run = _runs(client)["pretrain"]
    names = [f.path for f in client.list_artifacts(run.info.run_id, "samples")]
    assert names == ["samples/step_000002_001.txt", "samples/step_000002_002.txt"]
    database = sqlite_path(uri)
    assert database
    home = database.parent
    assert list(home.parent.iterdir()) == [home]
    texts = sorted(p.read_text() for p in (home / "mlartifacts").rglob("step_*.txt"))
    assert texts == ["Once upon a time", "The end"]


def test_a_second_window_adds_to_the_same_experiment(client: Any, uri: str) -> None:
    tracker = PipelineTracker(uri, patience_s=300.0)
    tracker.start_run("second", {}, {})
    tracker.close()
    run_id = tracker.run_id()
    assert run_id is not None and tracker.url() is None
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len([e for e in client.search_experiments() if e.name == "nanochat"]) == 1


def test_an_id_that_is_asked_for_does_not_wait_for_the_next_round_of_writing(uri: str) -> None:
    tracker = PipelineTracker(uri, patience_s=300.0)
    tracker._drain.interval_s = 600.0
    tracker.start_run("asked", {}, {})
    assert tracker.root_id()
    for node in ("tokenize/shard_00000", "tokenize/shard_00001"):
        tracker.stage(node, tags={}, params={})
        assert tracker.run_id(node, wait_s=60.0)
    tracker.close()
    assert tracker.errors == tracker.dropped == 0


def _made(node: str, key: str) -> Made:
    """A stage of five steps, as its record tells it."""
    points = [Point({"train/loss": 5.0 - step}, step, 1_000_000 + step) for step in range(5)]
    return Made(
        node=node,
        tags=run_tags(key=key, digest=f"digest of {key}", flow_run_id="flow-9"),
        params={"model": {"n_layer": 4}, "steps": 5},
        metrics={"train/loss": 1.0, "seconds": 7.0},
        datasets=[("tokenizer", _DIGEST, "/store")],
        started_ms=1_000_000,
        finished_ms=int(time.time() * 1000),
        history=lambda: History(points, [(4, "Once")]),
        run_name="left",
        run_tags={"nanochat.recipe": "left"},
        ends_run=True,
    )


def _whole(client: Any, run: Any) -> None:
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(step, 5.0 - step) for step in range(5)]
    assert run.info.status == "FINISHED" and run.data.metrics["seconds"] == 7.0
    assert run.data.params == {"model.n_layer": "4", "steps": "5"}
    assert run.data.tags["nanochat.digest"] == f"digest of {run.data.tags['nanochat.key']}"
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == [
        "samples/step_000004_001.txt"
    ]
    assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["tokenizer"]


def test_what_a_run_could_not_show_is_completed_by_the_next_one_and_only_once(
    client: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stage was cut off in the middle, one was never shown; both took less than a second."""
    monkeypatch.setattr(mlflow_sink, "_STILL_WRITING_MS", 0)
    while time.time() % 1 > 0.5:  # in one second, which is as records have it
        time.sleep(0.05)
    second_ms = int(time.time()) * 1000
    cut = PipelineTracker(uri, patience_s=300.0)
    cut.start_run("left", {}, {"nanochat.recipe": "left", "prefect.flow_run_id": "flow-9"})
    stage = cut.stage("pretrain", tags=run_tags(key="cut", flow_run_id="flow-9"), params={"steps": 5})
    for step in range(2):
        stage.log({"train/loss": 5.0 - step}, step=step, total_steps=5)
    cut._queue.close()
    assert cut._drain.join(300.0)

    experiment = client.get_experiment_by_name("nanochat").experiment_id
    for name in ("next", "after that"):
        tracker = PipelineTracker(uri, patience_s=300.0)
        tracker.start_run(name, {}, {"nanochat.recipe": "left", "prefect.flow_run_id": name})
        for node, key in (("pretrain", "cut"), ("sft", "unseen")):
            made = replace(_made(node, key), finished_ms=second_ms)
            tracker.cached(node, record_tags=run_tags(key=key), metrics=made.metrics, made=made)
        tracker.close()
        assert tracker.errors == tracker.dropped == 0 and not tracker.abandoned
        runs = client.search_runs([experiment])
        (parent,) = [r for r in runs if r.info.run_name == "left"]
        assert parent.info.status == "FINISHED"
        for node, key in (("pretrain", "cut"), ("sft", "unseen")):
            tagged = [r for r in runs if r.data.tags.get("nanochat.key") == key]
            (maker,) = [r for r in tagged if r.data.tags["cache.status"] == "executed"]
            _whole(client, maker)
            assert maker.data.tags["mlflow.parentRunId"] == parent.info.run_id
            (hit,) = [r for r in tagged if r.data.tags.get("mlflow.parentRunId") == tracker.run_id()]
            assert hit.info.run_name == node and hit.data.tags["nanochat.made_by_run"] == maker.info.run_id


def test_all_waiting_of_a_run_together_ends_with_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class _Never(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now
            assert timeout is not None
            now += timeout
            return False

    def join(limit_s: float) -> bool:
        nonlocal now
        now += limit_s
        return False

    tracker = PipelineTracker("http://127.0.0.1:9")
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now)
    monkeypatch.setattr(tracker._drain, "start", lambda: None)
    monkeypatch.setattr(tracker._drain, "join", join)
    tracker._drain._loaded.set()
    tracker.start_run("toy", {}, {})
    tracker._root.created = _Never()  # type: ignore[union-attr]
    for node in ("a", "b", "c"):
        tracker.stage(node, tags={}, params={})
        tracker._runs[node].created = _Never()
        assert tracker.run_id(node) is None
    assert 5.0 < now <= 6.0
    assert tracker.root_id() is None and tracker.run_id("a") is None
    tracker.close()
    assert tracker.abandoned and now == pytest.approx(10.0)


def _busy_window(uri: str, **limits: float) -> PipelineTracker:
    tracker = PipelineTracker(uri, **limits)  # type: ignore[arg-type]
    tracker.start_run("toy", {}, {})
    stage = tracker.stage("pretrain", tags={}, params={})
    for step in range(100):
        stage.log({"train/loss": 1.0}, step=step, total_steps=100)
    tracker.finish_stage(stage, "FINISHED")
    return tracker


def test_no_page_or_warning_has_the_servers_password(caplog: pytest.LogCaptureFixture) -> None:
    tracker = PipelineTracker("http://user:CANARY@127.0.0.1:1", patience_s=0.3)
    tracker.start_run("toy", {}, {})
    tracker.close()
    assert "MLflow at http://127.0.0.1:1" in caplog.text and "CANARY" not in caplog.text


def test_closed_port_disables_the_window_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        tracker = _busy_window(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with caplog.at_level(logging.WARNING):
            tracker.close()
    assert tracker.disabled and not tracker.abandoned and tracker.errors == 3
    assert tracker.run_id("pretrain") is None and tracker.url("pretrain") is None
    assert len(caplog.records) == 1 and "no answer from MLflow" in caplog.text


def test_server_that_never_answers_is_left_behind() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracker = _busy_window(f"http://127.0.0.1:{silent.getsockname()[1]}", patience_s=0.3)
        tracker.close()
        assert tracker.abandoned and tracker.errors == 0
        assert tracker.run_id("pretrain") is None


def test_mlflow_is_imported_by_the_windows_thread_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    importing: list[str] = []

    class _Watch:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "mlflow":
                importing.append(threading.current_thread().name)
                raise ImportError("not installed here")

    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Watch(), *sys.meta_path])
    tracker = _busy_window(f"sqlite:///{tmp_path}/mlflow.db")
    tracker.close()
    assert set(importing) == {"mlflow-tracker"} and tracker.disabled


def test_a_server_that_registers_no_models_has_the_runs_numbers_still(
    client: Any, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> str:
        raise RuntimeError("no registry here")

    monkeypatch.setattr(mlflow_sink, "register", refuse)
    model = PublishedModel(name="nanochat-toy", key="k", digest="d", params={}, description="")
    tracker = PipelineTracker(uri, patience_s=300.0)
    tracker.start_run("unregistered", {}, {"nanochat.recipe": "toy"})
    tracker.sum_up({"core": 0.25}, model)
    tracker.close()
    assert _runs(client)["unregistered"].data.metrics == {"core": 0.25}
    assert tracker.errors == 0 and "does not register nanochat-toy: no registry here" in caplog.text
    monkeypatch.undo()
    again = PipelineTracker(uri, patience_s=300.0)
    again.start_run("registered", {}, {"nanochat.recipe": "it's: a/toy"})
    again.sum_up({"core": 0.25}, model)
    again.close()
    found = _runs(client)
    assert [v.run_id for v in _registry(uri).search_model_versions("name = 'nanochat-toy'")] == [
        found["registered"].info.run_id
    ]
    assert found["unregistered"].info.run_id in found["registered"].data.tags["mlflow.note.content"]


def _registry(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)
