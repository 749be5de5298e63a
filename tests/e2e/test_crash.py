"""Whatever ends a run, and whenever: nothing wrong is ever kept, nothing finished is made again.

Processes are killed at seeded moments of their work with the storage, and at random times while they train;
after each kill the store must hold whole artifacts only, and the last run must end with the bytes of an
undisturbed one.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.store import Store
from flows.store.verify import verify
from tests.e2e.conftest import ROOT, Nanochat
from tests.e2e.crash_worker import Nursery
from tests.e2e.tiny_recipe import OVERRIDES, WORDS

pytestmark = [
    pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(1500),
]  # fmt: skip

WORKER_KILLS = 26  # and one for each moment of the command line below
CLI_MOMENTS = (
    "records/download/*.json", "resume/pretrain/*/*/manifest.json",
    "records/pretrain/*.json", "records/midtrain/*.json",
)  # fmt: skip
LIMIT_S = 600.0  # of one process on a busy machine


@dataclass
class Site:
    """A home with a store and the log of the workers that work on it."""

    home: Path
    nursery: Nursery
    url: str = ""

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.url = self.url or str(self.home / "store")

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def nodes(self, word: str, since: int = 0) -> list[str]:
        return [line[1] for line in self.lines[since:] if line[0] == word]

    def start(self, nursery: Nursery, **settings: Any) -> None:
        nursery.start(self.home, self.url, self.log, overrides=OVERRIDES, **settings)

    def run(self, **settings: Any) -> dict[str, Any] | None:
        """Return what a worker printed at its end, or None if it was killed."""
        self.start(self.nursery, **settings)
        return self.nursery.outcome()

    def store(self) -> Store:
        return Store.open(self.url, cache=self.home / "cache")

    def newest_restart_points(self) -> dict[str, int]:
        """Return the step of each training stage's newest whole restart point."""
        newest: dict[str, int] = {}
        for path in Path(self.url).glob("resume/*/*/*/manifest.json"):
            stage, step = path.parts[-4], int(path.parts[-2].split("-")[0])
            newest[stage] = max(newest.get(stage, 0), step)
        return newest


def assert_sound(store: Store, reference: dict[str, str]) -> set[str]:
    """Check that all there is, is whole and right; return the nodes that are finished."""
    findings = list(verify(store))
    assert findings == []
    records = store.records()
    assert {r.node: r.digest for r in records} == {r.node: reference[r.node] for r in records}
    assert store.missing_blobs(records) == set()
    return {r.node for r in records}


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, nursery) -> Site:
    return Site(tmp_path_factory.mktemp("undisturbed"), nursery)


@pytest.fixture(scope="module")
def reference(undisturbed) -> dict[str, str]:
    """Digest of every node of an undisturbed run."""
    site = undisturbed
    said = site.run()
    assert said and "digests" in said, said
    digests: dict[str, str] = said["digests"]
    assert Counter(site.nodes("started")) == Counter(list(digests))
    assert assert_sound(site.store(), digests) == set(digests)
    return digests


def test_a_run_killed_again_and_again_ends_with_the_digests_of_an_undisturbed_one(
    reference, nursery, tmp_path
):
    rng = random.Random(20)
    kills, resumed_later, sites = 0, 0, 0
    site = Site(tmp_path / "0", nursery)
    while True:
        known = Path(site.url).exists()
        finished = assert_sound(site.store(), reference) if known else set()
        points, since = site.newest_restart_points(), len(site.lines)
        said = site.run(**(_moment(rng, finished) if kills < WORKER_KILLS else {}))
        started = site.nodes("started", since)
        assert not finished & set(started), "a finished stage was executed again"
        assert max(Counter(started).values(), default=0) <= 1
        resumed = {line[1]: int(line[2]) for line in site.lines[since:] if line[0] == "resumed"}
        assert all(points[stage] == step for stage, step in resumed.items()), "not the newest restart point"
        assert points.keys() & set(started) & set(site.nodes("finished", since)) <= resumed.keys()
        resumed_later += sum(step > 0 for step in resumed.values())
        if said is None:
            kills += 1
            continue
        assert said == {"digests": reference}
        _assert_swept(site, reference)
        sites += 1
        if kills >= WORKER_KILLS:
            break
        site = Site(tmp_path / str(sites), nursery)
    assert resumed_later > 0


def test_an_evaluation_killed_on_one_rank_and_on_two_goes_on_and_ends_with_the_same_digest(
    reference, undisturbed, nursery, tmp_path
):
    shutil.copytree(undisturbed.url, tmp_path / "store")
    site = Site(tmp_path, nursery)
    shutil.rmtree(tmp_path / "store/records/evaluate_base")
    kept = [0]
    for processes in (1, 2):
        assert site.run(processes=processes, kill_at_report=["evaluate_base", kept[-1] + 4]) is None
        kept.append(site.newest_restart_points()["evaluate_base"])
    assert 0 < kept[1] < kept[2]
    assert site.run() == {"digests": reference}
    resumed = [
        int(step) for word, *node, step in site.lines if word == "resumed" and node == ["evaluate_base"]
    ]
    assert resumed == kept[1:]
    assert site.nodes("started") == ["evaluate_base"] * 3
    assert assert_sound(site.store(), reference) == set(reference)


def _moment(rng: random.Random, finished: set[str]) -> dict[str, Any]:
    """Return when the next worker kills itself."""
    trains = any(node.startswith("tokenize/") for node in finished) and "sft" not in finished
    if trains and rng.random() < 0.4:
        return {"kill_in_training_s": rng.uniform(0.1, 2.0)}
    return {"kill_at": rng.randint(1, 100)}


def _assert_swept(site: Site, reference: dict[str, str]) -> None:
    """Check that a finished run has all artifacts and left no local files, nor those of killed runs."""
    assert assert_sound(site.store(), reference) == set(reference)
    assert list((site.home / "scratch").iterdir()) == []
    assert [p.name for p in (site.home / "tmp").glob("nanochat-*")] == []


def _command_line(nanochat: Nanochat) -> subprocess.Popen[str]:
    options = ["--threads", "1", "--restart-point-every", "0.4", *WORDS]
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "run", "toy", *options],
        cwd=ROOT, env=nanochat.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def _wait_for(process: subprocess.Popen[str], store: Path, pattern: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not any(store.glob(pattern)):
        if process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"ended with {process.returncode} before {pattern}\n{out}{err}")
        assert time.monotonic() < deadline, f"no {pattern} in time"
        time.sleep(0.02)


def test_the_command_line_killed_again_and_again_ends_with_the_same_digests(reference, tmp_path, prefect_api):
    nanochat = Nanochat(tmp_path / "home", {"PREFECT_API_URL": prefect_api})
    store = nanochat.home / "store"
    rng = random.Random(4)
    for pattern in CLI_MOMENTS:
        process = _command_line(nanochat)
        _wait_for(process, store, pattern)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
        assert_sound(Store.open(str(store)), reference)
    finished = assert_sound(Store.open(str(store)), reference)
    _flip_a_bit(Store.open(str(store)), "midtrain")
    nodes = nanochat.json("run", "toy", "--threads", "1", *WORDS)["nodes"]
    assert {node: made["digest"] for node, made in nodes.items()} == reference
    executed = {node for node, made in nodes.items() if made["executed"]}
    assert finished & executed == {"midtrain"}, "what was damaged is made again, and nothing else"
    assert_sound(Store.open(str(store)), reference)


def _flip_a_bit(store: Store, stage: str) -> None:
    (model,) = (f for f in store.resolve(stage).files if f.path == "model.safetensors")
    path = store.blob_path(model)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_says_what_is_kept_and_goes_on_from_there(
    number, reference, tmp_path, prefect_api
):
    nanochat = Nanochat(tmp_path / "home", {"PREFECT_API_URL": prefect_api})
    process = _command_line(nanochat)
    _wait_for(process, nanochat.home / "store", "resume/pretrain/*/*/manifest.json")
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    assert "error: interrupted: stopped after step" in err and "is kept" in err
    assert "the same command continues from there" in err
    assert "Traceback" not in err
    finished = assert_sound(Store.open(str(nanochat.home / "store")), reference)
    assert "pretrain" not in finished
    done = nanochat("run", "toy", "--threads", "1", "--json", *WORDS)
    assert "continuing after step" in done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    assert {node: made["digest"] for node, made in nodes.items()} == reference
    assert not finished & {node for node, made in nodes.items() if made["executed"]}


def test_two_processes_at_once_execute_each_stage_once(reference, nursery, tmp_path):
    site = Site(tmp_path, nursery)
    with Nursery() as second:
        for each in (nursery, second):
            site.start(each)
        assert [each.outcome() for each in (nursery, second)] == [{"digests": reference}] * 2
    assert Counter(site.nodes("started")) == Counter(list(reference))
    _assert_swept(site, reference)


@pytest.mark.parametrize(("rate", "seed"), [(0.1, 1), (0.1, 2), (0.5, 3)])
def test_a_store_that_fails_is_survived_or_gives_a_clear_error(
    rate, seed, reference, nursery, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAULTY_RATE", str(rate))
    monkeypatch.setenv("FAULTY_SEED", str(seed))
    folder = tmp_path / "store"
    folder.mkdir()
    said = Site(tmp_path / "faulty", nursery, f"faulty://{folder}").run()
    assert said is not None
    if "error" in said:
        assert said["message"]
        assert rate > 0.1 or said["hint"], said
    else:
        assert said == {"digests": reference}
    site = Site(tmp_path / "sound", nursery, str(folder))
    finished = assert_sound(site.store(), reference)
    assert site.run() == {"digests": reference}
    assert not finished & set(site.nodes("started"))


def test_a_store_on_s3_gives_the_same_digests(reference, nursery, tmp_path, s3_store_url):
    site = Site(tmp_path, nursery, s3_store_url)
    assert site.run() == {"digests": reference}
    assert Counter(site.nodes("started")) == Counter(list(reference))
    assert assert_sound(site.store(), reference) == set(reference)
