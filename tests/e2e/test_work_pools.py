"""GPU stages in their own deployment: `prefect deploy --all`, a worker, and a run that hands them over."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Cancelling
from prefect.utilities.importtools import import_object
from prefect.workers.process import ProcessWorker

from flows.run.flow_runs import FlowRuns
from flows.run.pool import STAGE_DEPLOYMENT
from flows.store import Store
from nanochat.errors import ConfigError
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
            yield child
        finally:
            with suppress(ProcessLookupError):
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


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, prefect_api):
    """A home, and its server with both deployments."""
    home = tmp_path_factory.mktemp("deployed") / "home"
    nanochat = Nanochat(home, {"PREFECT_API_URL": prefect_api, "PREFECT_WORKER_QUERY_SECONDS": "2"})
    with SyncPrefectClient(api=prefect_api) as client:
        template = ProcessWorker.get_default_base_job_template()
        for pool in ("cpu", "gpu"):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
    prefect(nanochat, "deploy", "--all")
    return nanochat


def test_a_run_is_submitted_by_the_name_of_its_recipe(deployed, prefect_api):
    asked = deployed.json("submit", "toy", "-o", "sft.epochs=2", "--detach")
    assert asked["state"] == "Scheduled" and asked["flow_run_id"] in asked["page"]
    with SyncPrefectClient(api=prefect_api) as client:
        server = FlowRuns(client)
        run = client.read_flow_run(asked["flow_run_id"])
        assert run.parameters == {"recipe": "toy", "overrides": ["sft.epochs=2"], "dispatch": "pools"}
        with pytest.raises(ConfigError, match="'depht=6' does not match"):
            server.create("nanochat/cpu", "toy", {"recipe": "toy", "overrides": ["depht=6"]})
        with pytest.raises(ConfigError, match="no deployment 'nanochat/tpu'"):
            server.create("nanochat/tpu", "toy", {})
        server.cancel(asked["flow_run_id"])  # no worker has begun it
        assert server.now(asked["flow_run_id"]).state == "Cancelled"


def test_gpu_stages_run_in_the_stage_deployment_and_the_rest_here(deployed, tmp_path, prefect_api):
    nanochat = deployed
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
        assert there.name == f"toy · pretrain · {there.parameters['key'][:8]}"
        assert re.fullmatch(r"toy · [0-9a-f]{8}", here.name)
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


@pytest.mark.skipif(sys.platform != "linux", reason="finds a process by its environment")
def test_a_killed_stage_goes_on_and_a_cancelled_pipeline_reaches_it_after_an_outage(
    deployed, tmp_path, prefect_api
):
    longer = {"pretrain.steps": 100_000, "pretrain.eval_every": 50_000, "pretrain.sample_every": 50_000}
    words = [
        "run",
        "toy",
        *overrides(**longer),
        "--threads",
        "1",
        "--until",
        "pretrain",
        "--dispatch",
        "pools",
    ]
    command = [sys.executable, "-m", "flows", *words, "--restart-point-every", "0.5"]
    with (
        SyncPrefectClient(api=prefect_api) as client,
        worker(deployed, "gpu", tmp_path / "worker.log") as working,
        (tmp_path / "said").open("wb") as said,
    ):
        known = {run.id for run in client.read_flow_runs(limit=200)}

        def flow_runs():
            mine = PrefectView(client).flow_runs_with(str(deployed.home / "store"))
            return [run for run in mine if run.id not in known]

        run = subprocess.Popen(command, cwd=ROOT, env=deployed.env, stdout=said, stderr=said)
        _, first = until(lambda: (found := flow_runs()) and len(found) == 2 and found)
        points = Store.open(str(deployed.home / "store"), cache=tmp_path).restart_points(
            "pretrain", first.parameters["key"]
        )
        killed_at = until(lambda: max(points.step(), 0))
        process_of(first).kill()

        here, first, second = until(lambda: (found := flow_runs()) and len(found) == 3 and found)
        until(lambda: points.step() > killed_at)

        working.kill()  # nobody is left to pass a cancellation on
        stage, server = process_of(second), server_of(prefect_api)
        server.suspend()
        time.sleep(12)  # longer than anybody waits for an answer
        server.resume()
        client.set_flow_run_state(here.id, Cancelling())
        assert run.wait(120) == 1
        psutil.wait_procs([stage], timeout=120)
        assert not stage.is_running()
        ends = {
            name: client.read_flow_run(of.id).state_name for name, of in (("run", here), ("stage", second))
        }
        assert ends == {"run": "Cancelled", "stage": "Cancelled"}, (tmp_path / "said").read_text()
    text = (tmp_path / "said").read_text()
    assert "goes on from step" in text
    assert "its flow run was cancelled" in text
    assert points.step() > killed_at


def until(found, limit_s=300):
    """Return what is found, once it is anything."""
    deadline = time.monotonic() + limit_s  # a crowded machine is not a failure
    while not (result := found()):
        assert time.monotonic() < deadline, "nothing was found in time"
        time.sleep(0.3)
    return result


def process_of(run):
    """Return the process in which a flow run is."""
    return until(lambda: next((p for p in psutil.process_iter() if _runs(p, str(run.id))), None))


def _runs(process, flow_run_id):
    try:
        return (
            process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run_id
            and "prefect.engine" in process.cmdline()
        )
    except psutil.Error:
        return False


def server_of(url):
    """Return the process that listens at an address of this machine."""
    port = int(url.split(":")[2].partition("/")[0])
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(c.status == "LISTEN" and c.laddr.port == port for c in process.net_connections()):
                return process
    raise AssertionError(f"nothing listens at {url}")
