"""A run makes the plan that the command line made, with the store and settings that it opened."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Nanochat, write_corpus

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first of them starts the server and makes the runs; a crowded machine
    pytest.mark.xdist_group("prefect"),
]

SHARDS = [f"download/shard_0000{i}" for i in range(3)]
ONCE = {"plans": 1, "settings": 1, "stores": 1}


@dataclass(frozen=True)
class CountedRun:
    """What `nanochat plan` showed and `nanochat run` made, by node; and what was counted meanwhile."""

    planned: dict[str, str]
    made: dict[str, str]
    counted: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory, prefect_api):
    folder = tmp_path_factory.mktemp("plan_once")
    corpus, _ = write_corpus(folder / "corpus")
    nanochat = Nanochat(folder / "home", {"PREFECT_API_URL": prefect_api})
    shards = ("-o", f"corpus.source={corpus}", "-o", "corpus.val_shard=shard_00002")
    words = ("toy", *shards, "--until", "download")
    planned = nanochat.json("plan", *words)["nodes"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.counted_run", str(corpus), "run", *words, "--json"],
        cwd=ROOT, env=nanochat.env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said, _, counted = done.stdout.rstrip().rpartition("\n")
    return CountedRun(
        {node["node"]: node["key"] for node in planned},
        {name: node["key"] for name, node in json.loads(said)["nodes"].items()},
        json.loads(counted),
    )


def test_a_run_plans_once_and_reads_its_settings_and_opens_its_store_once(run):
    assert run.counted["command"] == ONCE


def test_a_source_that_changes_after_the_plan_does_not_change_what_is_made(run):
    assert sorted(run.planned) == SHARDS
    assert run.made == run.planned


def test_a_flow_that_a_worker_starts_plans_for_itself_once(run):
    assert run.counted["worker"] == ONCE
    assert run.counted["nodes of worker"] == [SHARDS[0], "download/shard_00000_more", SHARDS[2]]
