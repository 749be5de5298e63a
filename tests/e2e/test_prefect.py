"""The pipeline as Prefect shows it: states, lineage, parameters, progress, retries; asked through its API."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError

from flows import dag
from nanochat import recipes
from nanochat.recipes import small
from tests.e2e.conftest import ROOT, SMALL, Nanochat, overrides, write_corpus
from tests.e2e.prefect_view import PrefectView

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first of them starts the server and makes the runs; a crowded machine
    pytest.mark.xdist_group("prefect"),
]

SHARD = "download/shard_00001"
STEPS = SMALL["pretrain.steps"]


@pytest.fixture(scope="module")
def prefect(prefect_api):
    with SyncPrefectClient(api=prefect_api) as client:
        yield PrefectView(client)


@pytest.fixture(scope="module")
def two_runs(small_runs, prefect):
    """The flow runs of the small recipe, executed and then cached."""
    runs = prefect.flow_runs_with(str(small_runs.nanochat.home / "store"))
    assert [run.state_name for run in runs] == ["Completed", "Completed"]
    return runs


@pytest.fixture(scope="module")
def nodes():
    return {n.id: n for n in dag.build(recipes.find("toy", overrides()[1::2]))}


def test_executed_stages_are_completed_and_hits_are_cached(two_runs, prefect, nodes):
    for run, name in zip(two_runs, ("Completed", "Cached"), strict=True):
        tasks = prefect.settled(run.id, set(nodes))
        states = {node: (task.state_name, task.state_type) for node, task in tasks.items()}
        assert states == dict.fromkeys(nodes, (name, StateType.COMPLETED))


def test_lineage_edges_lead_to_the_task_runs_of_the_inputs(two_runs, prefect, nodes):
    for run in two_runs:
        tasks = prefect.settled(run.id, set(nodes))
        by_id = {task.id: node for node, task in tasks.items()}
        for node_id, task in tasks.items():
            edges = {by_id[i.id] for i in task.task_inputs["inputs"]}
            assert edges == set(dag.input_ids(nodes[node_id])), node_id
    assert {"tokenizer", "tokenize/shard_00000"} <= set(dag.input_ids(nodes["pretrain"]))


def test_the_flow_run_holds_the_recipe(two_runs):
    recipe = recipes.find("toy", overrides()[1::2])
    for run in two_runs:
        assert run.parameters["recipe"] == recipe.model_dump(mode="json")


def test_long_stages_report_progress_with_numbers_and_words(two_runs, prefect):
    artifacts = prefect.artifacts(two_runs[0].id)
    told = artifacts["progress-pretrain"]
    assert told["type"] == "progress" and float(told["data"]) == 100.0
    assert f"step {STEPS}/{STEPS}" in told["description"] and "train/loss" in told["description"]
    assert told["task_run_id"] == str(prefect.tasks(two_runs[0].id)["pretrain"].id)
    assert {"progress-midtrain", "progress-sft"} <= set(artifacts)


def test_the_page_of_a_run_shows_its_plan_and_what_came_of_it(two_runs, prefect, nodes):
    first, second = (prefect.artifacts(run.id) for run in two_runs)
    tables = {name: json.loads(first[name]["data"]) for name in ("plan", "results", "headline")}
    assert {row["node"]: row["action"] for row in tables["plan"]}.keys() == set(nodes)
    assert {row["node"] for row in tables["results"]} == set(nodes)
    assert {row["status"] for row in tables["results"]} == {"done"}
    (pretrain,) = [row for row in tables["results"] if row["node"] == "pretrain"]
    assert len(pretrain["digest"]) == 12 and "val/bpb" in pretrain["numbers"] and pretrain["seconds"] > 0
    assert {"parameters", "val/bpb", "hours"} <= {row["number"] for row in tables["headline"]}
    assert {row["status"] for row in json.loads(second["results"]["data"])} == {"cached"}


def test_wrong_parameters_are_refused_before_anything_is_scheduled(prefect):
    from prefect.utilities.callables import parameter_schema

    from flows.pipeline import pipeline

    flow_id = prefect.client.create_flow_from_name("nanochat")
    schema = parameter_schema(pipeline).model_dump_for_openapi()
    deployment = prefect.client.create_deployment(
        flow_id, "checked", parameter_openapi_schema=schema, enforce_parameter_schema=True
    )
    recipe = small.toy().model_dump(mode="json")
    for wrong, sign in (
        ({"recipe": {**recipe, "depth": "x"}}, "'x'"),
        ({"recipe": {**recipe, "depht": 4}}, "depht"),
        ({"recipe": recipe, "dispatch": "cloud"}, "cloud"),
    ):
        with pytest.raises(PrefectHTTPStatusError) as refused:
            prefect.client.create_flow_run_from_deployment(deployment, parameters=wrong)
        assert refused.value.response.status_code in (409, 422)
        assert sign in refused.value.response.text
    assert prefect.client.create_flow_run_from_deployment(deployment, parameters={"recipe": recipe})


def test_a_passing_fault_is_tried_again_within_the_run(tmp_path, prefect_api, prefect):
    """In a child process, since Prefect reads its settings once."""
    store = str(tmp_path / "store")
    env = Nanochat(tmp_path / "home", {"PREFECT_API_URL": prefect_api}).env
    command = [sys.executable, "-m", "tests.e2e.flaky_run", store]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    run = prefect.client.read_flow_run(done.stdout.split()[-1])
    assert run.state_name == "Completed"
    tasks = prefect.settled(run.id, {"download/shard_00000"})
    task = tasks["download/shard_00000"]
    assert (task.state_name, task.run_count) == ("Completed", 2)


def test_a_failed_run_is_retried_and_goes_on_where_it_failed(tmp_path, prefect_api, prefect):
    corpus, whole = write_corpus(tmp_path / "corpus")
    damaged = corpus / "shard_00001.parquet"
    damaged.write_bytes(b"PAR1 but cut short")
    nanochat = Nanochat(tmp_path / "home", {"PREFECT_API_URL": prefect_api})
    words = overrides({"tokenizer.vocab_size": 300, "pretrain.model.vocab_size": 300})
    words += ["-o", f"corpus.source={corpus}", "-o", "corpus.val_shard=shard_00002"]
    words += ["--until", "tokenize", "--threads", "1"]
    failed = nanochat("run", "toy", *words, code=1)
    assert SHARD in failed.stderr
    (run,) = prefect.flow_runs_with(str(nanochat.home / "store"))
    assert run.state_name == "Failed"
    names = [f"{stage}/shard_0000{i}" for stage in ("download", "tokenize") for i in range(3)]
    names, repaired = [*names, "tokenizer"], {SHARD, "tokenize/shard_00001"}
    tasks = prefect.settled(run.id, set(names) - {"tokenize/shard_00001"})
    made = {n: "Failed" if n == SHARD else "Completed" for n in tasks}
    assert {n: t.state_name for n, t in tasks.items()} == made, failed.stderr

    damaged.write_bytes(whole)
    retried_at = datetime.now(UTC)
    retry = [sys.executable, "-m", "prefect", "--no-prompt", "flow-run", "retry", str(run.id)]
    again = subprocess.run(
        [*retry, "--entrypoint", "flows/pipeline.py:pipeline"],
        cwd=ROOT, env=nanochat.env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    run = prefect.client.read_flow_run(run.id)
    assert (run.state_name, run.run_count) == ("Completed", 2)
    tasks = prefect.settled(run.id, set(names), since=retried_at)
    expected = {n: "Completed" if n in repaired else "Cached" for n in names}
    assert {n: t.state_name for n, t in tasks.items()} == expected
