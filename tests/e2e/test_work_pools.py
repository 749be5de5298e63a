"""GPU stages in their own deployment: `prefect deploy --all`, a worker, and a run that hands them over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.importtools import import_object
from prefect.workers.process import ProcessWorker

from flows.run.pool import STAGE_DEPLOYMENT
from tests.e2e.conftest import ROOT, Nanochat, overrides
from tests.e2e.prefect_view import PrefectView

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first of them starts the server and makes the runs; a crowded machine
    pytest.mark.xdist_group("prefect"),
]


def prefect(nanochat: Nanochat, *args: str) -> None:
    """Run a command of Prefect's own."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *args]
    done = subprocess.run(command, cwd=ROOT, env=nanochat.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def worker(nanochat: Nanochat, pool: str, log: Path):
    """Keep a worker of a pool up, started far from the checkout."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--limit", "1"]
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=log.parent, env=nanochat.env, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def mlflow_runs(nanochat: Nanochat):
    """Return all runs in the MLflow of a home."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{nanochat.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nanochat")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def test_deployments_lead_to_flows_of_ours():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    flows = {f"{import_object(d['entrypoint']).name}/{d['name']}": d["work_pool"] for d in deployments}
    assert set(flows) == {"nanochat/cpu", STAGE_DEPLOYMENT}
    assert all(pool["job_variables"]["stream_output"] is False for pool in flows.values())


def test_gpu_stages_run_in_the_stage_deployment_and_the_rest_here(tmp_path, prefect_api):
    nanochat = Nanochat(
        tmp_path / "home", {"PREFECT_API_URL": prefect_api, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    )
    with SyncPrefectClient(api=prefect_api) as client:
        template = ProcessWorker.get_default_base_job_template()
        for pool in ("cpu", "gpu"):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
    prefect(nanochat, "deploy", "--all")
    with worker(nanochat, "gpu", tmp_path / "worker.log"):
        words = (*overrides(), "--threads", "1", "--until", "pretrain", "--dispatch", "pools")
        nodes = nanochat.json("run", "toy", *words)["nodes"]
    assert all(node["executed"] for node in nodes.values())
    with SyncPrefectClient(api=prefect_api) as client:
        here, there = PrefectView(client).flow_runs_with(str(nanochat.home / "store"))
        assert here.deployment_id is None and here.state_name == "Completed"
        assert client.read_deployment(there.deployment_id).name == "gpu"
        assert there.state_name == "Completed" and there.work_pool_name == "gpu"
        assert there.parameters["node_id"] == "pretrain"
        assert there.parameters["key"] == nodes["pretrain"]["key"]
        assert there.parameters["runtime"]["threads"] == 1
        assert client.read_task_run(there.parent_task_run_id).flow_run_id == here.id
        assert "progress-pretrain" in PrefectView(client).artifacts(there.id)
    runs = {run.info.run_name: run for run in mlflow_runs(nanochat)}
    parent = runs.pop("toy")
    assert set(runs) == set(nodes)  # also the stage that another process made
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    made = {record["node"]: record["provenance"]["prefect"]["flow_run_id"] for record in nanochat.json("ls")}
    assert made.pop("pretrain") == str(there.id)
    assert set(made.values()) == {str(here.id)}
