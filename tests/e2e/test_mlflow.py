"""A pipeline run as MLflow shows it: a parent, a child a stage, and from a hit to the run that made it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest

from flows import dag
from nanochat import recipes
from tests.e2e.conftest import ROOT, SMALL, Nanochat, overrides

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first of them starts the server and makes the runs; a crowded machine
    pytest.mark.xdist_group("prefect"),
]


STEPS = SMALL["pretrain.steps"]


class View:
    """The runs of a tracking database."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri, registry_uri=uri)

    def runs(self):
        """Return (parent, children by node) of each pipeline run, oldest first."""
        experiment = self.client.get_experiment_by_name("nanochat")
        found = self.client.search_runs([experiment.experiment_id], max_results=1000)
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        return [
            (
                parent,
                {
                    run.info.run_name: run
                    for run in found
                    if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
                },
            )
            for parent in sorted(parents, key=lambda run: run.info.start_time)
        ]


@pytest.fixture(scope="module")
def three_runs(small_runs):
    """The tracking database of the three small runs, and the store's records by node."""
    records = {record["node"]: record for record in small_runs.nanochat.json("ls")}
    return View(small_runs.mlflow_uri), records


@pytest.fixture(scope="module")
def nodes():
    return {n.id: n for n in dag.build(recipes.find("toy", overrides()[1::2]))}


def test_a_run_has_one_parent_with_the_recipe_and_a_child_for_each_node(three_runs, nodes):
    view, _ = three_runs
    runs = view.runs()
    assert len(runs) == 3
    for parent, children in runs:
        assert parent.info.run_name == "toy" and parent.info.status == "FINISHED"
        assert parent.data.params["pretrain.steps"] == str(STEPS)
        assert set(children) == set(nodes)
        assert {child.info.status for child in children.values()} == {"FINISHED"}


def test_runs_can_be_compared_by_the_numbers_of_their_parents(three_runs):
    view, records = three_runs
    experiment = view.client.get_experiment_by_name("nanochat")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    for parent, _ in view.runs():
        found = parent.data.metrics
        assert found["val/bpb"] == pytest.approx(records["pretrain"]["metrics"]["val/bpb"])
        assert found["mmlu"] == records["evaluate_sft"]["metrics"]["eval/mmlu"]
        assert {"parameters", "tokens", "flops", "hours"} <= set(found) and found["hours"] > 0
        assert any(name.startswith("core") for name in found)
        assert any(name.startswith("chatcore") for name in found)


def test_the_published_model_is_registered_once_with_its_digest_and_numbers(three_runs):
    view, records = three_runs
    client, published = view.client, records["publish"]
    versions = client.search_model_versions("name = 'nanochat-toy'")
    assert [version.tags["nanochat.digest"] for version in versions] == [published["digest"]]
    first, *later = (parent for parent, _ in view.runs())
    assert versions[0].run_id == first.info.run_id and published["key"][:12] in versions[0].description
    by_digest = f"tags.`nanochat.digest` = '{published['digest']}'"
    (model,) = client.search_logged_models([first.info.experiment_id], filter_string=by_digest)
    assert versions[0].source == model.artifact_location and model.source_run_id == first.info.run_id
    assert model.params["parameters"] == str(published["metrics"]["parameters"])
    assert {metric.key: metric.value for metric in model.metrics} == first.data.metrics
    assert "mlflow.note.content" not in first.data.tags  # there was nothing to compare with
    for parent in later:
        note = parent.data.tags["mlflow.note.content"]
        assert "#/compare-runs?" in note and parent.info.run_id in note and first.info.run_id in note


def test_an_executed_stage_has_params_metrics_over_time_system_metrics_and_its_inputs(three_runs, nodes):
    view, records = three_runs
    _, children = view.runs()[0]
    pretrain = children["pretrain"]
    assert pretrain.data.params["steps"] == str(STEPS) and pretrain.data.params["model.n_layer"] == "2"
    losses = view.client.get_metric_history(pretrain.info.run_id, "train/loss")
    assert [point.step for point in losses] == list(range(1, STEPS + 1))
    assert losses[-1].value < losses[0].value
    assert [p.step for p in view.client.get_metric_history(pretrain.info.run_id, "val/bpb")][-1] == STEPS
    assert {"system/cpu_percent", "system/memory_bytes"} <= set(pretrain.data.metrics)
    for node_id in ("pretrain", "publish", "tokenize/shard_00000"):
        inputs = children[node_id].inputs.dataset_inputs
        told = {i.dataset.name: {t.key: t.value for t in i.tags}["nanochat.digest"] for i in inputs}
        assert told == {i: records[i]["digest"] for i in dag.input_ids(nodes[node_id])}


def test_every_stage_is_tagged_with_key_digest_commit_and_prefect_run(three_runs):
    view, records = three_runs
    for number, (parent, children) in enumerate(view.runs()):
        for node_id, child in children.items():
            tags = child.data.tags
            assert tags["nanochat.key"] == records[node_id]["key"]
            assert tags["nanochat.digest"] == records[node_id]["digest"]
            assert tags["cache.status"] == ("executed" if number == 0 else "cached")
            assert tags.get("mlflow.source.git.commit") == records[node_id]["provenance"]["commit"]
            if number < 2:  # these ran under a Prefect server
                assert tags["prefect.flow_run_id"] == parent.data.tags["prefect.flow_run_id"]
                assert tags["prefect.task_run_id"] in tags["prefect.url"]


def test_a_hit_leads_to_the_run_that_made_it(three_runs):
    view, _ = three_runs
    (_, made), *cached = view.runs()
    for _, children in cached:
        found = {node: child.data.tags.get("nanochat.made_by_run") for node, child in children.items()}
        assert found == {node: run.info.run_id for node, run in made.items()}


def test_a_tracking_server_that_is_away_does_not_fail_the_run(tmp_path, prefect_api):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    away = {"MLFLOW_TRACKING_URI": closed, "PREFECT_API_URL": prefect_api}
    nanochat = Nanochat(tmp_path / "home", away)
    done = nanochat("run", "toy", *overrides(), "--until", "tokenizer", "--threads", "1")
    assert "tokenizer" in done.stdout
    assert f"no answer from MLflow at {closed}" in done.stderr and "Traceback" not in done.stderr


def test_ui_opens_both_windows_and_ctrl_c_closes_them(tmp_path):
    nanochat = Nanochat(tmp_path / "home", {})
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "flows", "ui"],
        cwd=ROOT,
        env=nanochat.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ui:
        try:
            pages = dict(ui.stdout.readline().split() for _ in range(2))
            assert set(pages) == {"Prefect", "MLflow"}
            for health in (f"{pages['Prefect']}/api/health", f"{pages['MLflow']}/health"):
                with urllib.request.urlopen(health, timeout=30) as answer:
                    assert answer.status == 200
            children = psutil.Process(ui.pid).children(recursive=True)
            assert len(children) >= 4  # two servers, each under its guard
            os.kill(ui.pid, signal.SIGINT)
            _, said = ui.communicate(timeout=300)
        finally:
            ui.kill()
    assert ui.returncode == 0
    assert "closed" in said and "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
