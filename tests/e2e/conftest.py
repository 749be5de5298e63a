"""What end-to-end tests share: the command line as a child process, and one Prefect server for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.display.servers import local_prefect_server
from nanochat.sqlite_urls import sqlite_url

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class SmallRuns:
    """The small recipe in one home: executed, then cached under a Prefect server, then cached without one."""

    nanochat: Nanochat
    mlflow_uri: str
    done: tuple[subprocess.CompletedProcess[str], ...]  # what each printed


@dataclass(frozen=True)
class Nanochat:
    """The `nanochat` command with a home of its own."""

    home: Path
    extra: dict[str, str]

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NANOCHAT_", "PREFECT_", "MLFLOW_"))}
        patient = {"NANOCHAT_MLFLOW_WAIT_S": "300"}  # on a busy machine, its import alone may take 30 s
        return {**kept, **patient, "NANOCHAT_HOME": str(self.home), **self.extra}

    def __call__(self, *args: str, code: int = 0, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "flows", *args],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (
            f"nanochat {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def json(self, *args: str, **options):
        return json.loads(self(*args, "--json", **options).stdout)


@pytest.fixture(scope="session")
def prefect_folder(tmp_path_factory):
    """The home of a Prefect server's database and log."""
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="session")
def prefect_api(prefect_folder):
    """Address of a running Prefect server's API."""
    with local_prefect_server(prefect_folder) as url:
        yield url


@pytest.fixture
def nanochat(tmp_path):
    return Nanochat(tmp_path / "home", {})


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory, prefect_api):
    """Three runs of the small recipe, for whoever looks at what Prefect and MLflow show of them.

    The home has an odd name; the environment is full of secrets, and names proxies that are not there.
    """
    home = tmp_path_factory.mktemp("small") / "a b 100%25 #1 Größe 日本 why?x=1&y;"
    mlflow = {"MLFLOW_TRACKING_URI": sqlite_url(home / "mlflow.db")}
    words = ("run", "toy", *overrides(), "--threads", "1")
    page = prefect_api.removesuffix("/api").replace("://", f"://user:{CANARY}@")
    server = {"PREFECT_API_URL": prefect_api, "PREFECT_UI_URL": page}
    with_server = Nanochat(home, {**mlflow, **SECRETS, **server})
    done = (with_server(*words), with_server(*words), Nanochat(home, {**mlflow, **SECRETS})(*words))
    assert [home] == list(home.parent.iterdir())
    return SmallRuns(with_server, mlflow["MLFLOW_TRACKING_URI"], done)


CANARY = "canary-4f1d9b7e"
SECRETS = {  # what a user's environment may hold, and addresses that hold some; nothing may keep them
    "HTTP_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
    "ALL_PROXY": f"socks5://user:{CANARY}@127.0.0.1:9",
    "HF_TOKEN": f"hf_{CANARY}",
    "HF_ENDPOINT": f"https://user:{CANARY}@mirror.invalid",
    "AWS_ACCESS_KEY_ID": f"AK{CANARY}",
    "AWS_SECRET_ACCESS_KEY": f"sk{CANARY}",
    "AWS_SESSION_TOKEN": f"st{CANARY}",
    "AWS_ENDPOINT_URL": f"https://user:{CANARY}@s3.invalid",
    "MLFLOW_TRACKING_PASSWORD": f"ml{CANARY}",
    "MLFLOW_TRACKING_TOKEN": f"mt{CANARY}",
    "PREFECT_API_KEY": f"pk{CANARY}",
}


@dataclass(frozen=True)
class ToyRun:
    """A home in which `nanochat run toy` has run once, and what it printed."""

    nanochat: Nanochat
    done: subprocess.CompletedProcess[str]


# One thread: other tests run beside this one, and two threads that wait for each other are far slower.
RUN_TOY = ("run", "toy", "--threads", "1")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The toy, run once for all tests of the group "toy"; they leave its store as it is."""
    nanochat = Nanochat(tmp_path_factory.mktemp("toy") / "home", {})
    return ToyRun(nanochat, nanochat(*RUN_TOY, timeout_s=1500))


# A recipe small enough to run many times, with every stage and every kind of task in it.
SMALL = {
    "depth": 2,
    "corpus.toy.documents_per_shard": 150,
    "tasks.toy.questions": 24,
    "tasks.toy.held_out": 4,
    "tokenizer.vocab_size": 400,
    "pretrain.model.vocab_size": 400,
    "pretrain.steps": 12,
    "pretrain.eval_every": 6,
    "pretrain.eval_tokens": 1024,
    "pretrain.sample_every": 12,
    "pretrain.batch_tokens": 1024,
    "midtrain.batch_tokens": 2048,
    "midtrain.eval_every": 10,
    "evaluate.max_problems": 2,
    "evaluate.core_max_problems": 2,
    "evaluate.max_new_tokens": 8,
    "evaluate.bpb_tokens": 1024,
}


def overrides(values=None, **more):
    """Return `-o field=value` words for a mapping of dotted names."""
    both = {**(SMALL if values is None else values), **more}
    return [word for name, value in both.items() for word in ("-o", f"{name}={value}")]


def write_corpus(folder: Path) -> tuple[Path, bytes]:
    """Write three text shards; return their folder and the bytes of the one in the middle."""
    folder.mkdir()
    words = "the quick brown fox jumps over a lazy dog and sleeps in green grass".split()  # noqa: SIM905
    for i in range(3):
        texts = [" ".join(words[(i + j * k) % len(words)] for k in range(40)) for j in range(60)]
        pq.write_table(pa.table({"text": texts}), folder / f"shard_{i:05d}.parquet")
    return folder, (folder / "shard_00001.parquet").read_bytes()
