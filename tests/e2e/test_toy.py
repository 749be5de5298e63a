"""The README's promise: one command from text to a chat model on the built-in world, then nothing twice."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from flows.stages import STAGES
from tests.e2e.conftest import ROOT, RUN_TOY, Nanochat, overrides
from tests.support.documents import difference, masked
from tests.support.hub_pages import HubPages, pages_served
from tests.support.signing_keys import write_keys

README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("toy")]

# On held-out questions, after SFT, every task of the evaluation; 100 problems each. Measured above chance:
# arc_easy 0.74, arc_challenge 0.75, mmlu 0.51, gsm8k 0.98, humaneval 0.72.
ABOVE_CHANCE = 0.25
CHATCORE_ABOVE_CHANCE = 0.20
CHATCORE_ABOVE_BASE = 0.15

# The toy's own shapes and data with fewer steps: what is asked of two runs is equal bytes, not a good model.
SHORT = {
    "pretrain.steps": 16,
    "pretrain.eval_every": 8,
    "midtrain.mixture": "[{task: arc_easy, rows: 100}, {task: gsm8k, rows: 100}]",
    "sft.mixture": "[{task: arc_easy, rows: 100}, {task: functions, rows: 100}]",
    "evaluate.max_problems": 8,
    "evaluate.core_max_problems": 8,
}


def digests(nanochat, *words):
    return {n["node"]: n["digest"] for n in nanochat.json("plan", *(words or ("toy",)))["nodes"]}


def test_the_run_prints_what_the_readme_shows_and_writes_the_card(toy):
    block = re.search(r"<!-- toy-output -->\n```text\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)[1]
    progress, _, printed = block.partition("\n\n")
    seen = {masked(line) for line in toy.done.stderr.splitlines()}
    assert [line for line in progress.splitlines() if masked(line) not in seen] == []
    stdout = toy.done.stdout.replace(str(toy.nanochat.home), "~/.cache/nanochat")
    assert difference(printed.splitlines(), stdout.splitlines()) is None, stdout
    card = toy.nanochat.home / "models" / "toy" / "README.md"
    assert card.read_text(encoding="utf-8").startswith("---\n")


def test_the_run_names_every_node_as_done_and_every_stage_in_its_table(toy):
    done = set(re.findall(r"^(\S+) +done   [0-9a-f]{12}  ", toy.done.stderr, flags=re.MULTILINE))
    assert done == set(digests(toy.nanochat))
    table = toy.done.stdout.partition("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in table] == list(STAGES)


def test_the_model_learned_on_held_out_questions(toy):
    nanochat = toy.nanochat
    results = nanochat.json(*RUN_TOY)["results"]
    tasks = results["sft"]["tasks"]
    above = {name: task["accuracy"] - task["baseline"] for name, task in tasks.items()}
    assert len(above) == 5
    assert {name: score for name, score in above.items() if score < ABOVE_CHANCE} == {}
    chatcore = {model: results[model]["metrics"]["chatcore_of_100_each"] for model in ("base", "sft")}
    assert chatcore["sft"] >= CHATCORE_ABOVE_CHANCE
    assert chatcore["sft"] - chatcore["base"] >= CHATCORE_ABOVE_BASE


def test_a_second_run_executes_nothing_and_starts_no_server(toy):
    nanochat = toy.nanochat
    log = nanochat.home / "prefect"
    before = {p: p.stat().st_mtime_ns for p in log.rglob("*") if p.is_file()}
    again = nanochat(*RUN_TOY)
    assert "Prefect server" not in again.stderr
    assert {p: p.stat().st_mtime_ns for p in log.rglob("*") if p.is_file()} == before
    nodes = nanochat.json(*RUN_TOY)["nodes"]
    assert nodes and not any(n["executed"] for n in nodes.values())
    assert " done" not in again.stdout


def test_plan_and_why_name_the_changed_field_before_anything_runs(toy):
    nanochat = toy.nanochat
    plan = nanochat.json("plan", "toy", "-o", "sft.epochs=7")
    assert {n["node"] for n in plan["nodes"] if n["action"] != "cached"} == {"sft", "evaluate_sft", "publish"}
    assert "sft.epochs" in nanochat("why", "toy", "sft", "-o", "sft.epochs=7").stdout


def test_everything_that_reads_the_store_works_on_a_finished_run(toy):
    nanochat = toy.nanochat
    assert nanochat("verify").stderr.strip() == "everything is as recorded"
    lineage = nanochat("inspect", "publish").stdout
    assert "download/" in lineage and "tokenizer" in lineage
    assert len(nanochat.json("ls")) == len(nanochat.json("plan", "toy")["nodes"])
    assert nanochat("chat", "-p", "Hello!").stdout.strip()
    assert nanochat.json("gc", "--dry-run")["records"] == []
    page = nanochat("report", "toy").stdout.strip()
    assert page.endswith(".html")
    assert "pretrain" in Path(page).read_text(encoding="utf-8")


def test_a_signed_export_is_verified_with_all_that_it_was_made_from(toy, tmp_path):
    nanochat, folder = toy.nanochat, tmp_path / "model"
    private, public = write_keys(tmp_path)
    nanochat("export", "publish", str(folder), "--sign", str(private))
    verified = nanochat("verify", str(folder), "--key", str(public), "--lineage")
    assert verified.stdout == "" and "by their owner's account: recipe toy" in verified.stderr
    said = nanochat.json("verify", str(folder), "--key", str(public))
    packages = json.loads((folder / "sbom.cdx.json").read_text())["components"]
    assert {"torch", "numpy", "prefect"} <= {each["name"] for each in packages}
    assert {"sbom.cdx.json", "provenance.json", "README.md", "generate_cpu.py"} < {*said["files"]}
    nodes = nanochat.json("plan", "toy")["nodes"]
    assert len(said["made_from"]["ancestors"]) == len(nodes)
    elsewhere = ("--store", str(tmp_path / "empty"), "--lineage")
    missing = nanochat("verify", str(folder), "--key", str(public), *elsewhere, code=1)
    assert missing.stdout.count("is not in the store") == len(nodes)
    copied = tmp_path / "copied"
    shutil.copytree(nanochat.home / "store", copied)
    deep = next(each for each in said["made_from"]["ancestors"] if each["stage"] == "tokenize")
    record = json.loads((copied / "records" / "tokenize" / f"{deep['key']}.json").read_text())
    sha256 = record["files"][0]["sha256"]
    blob = copied / "blobs" / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    elsewhere = ("--store", str(copied), "--lineage")
    damaged = nanochat("verify", str(folder), "--key", str(public), *elsewhere, code=1)
    assert sha256[:12] in damaged.stdout and "is not in the store" not in damaged.stdout
    (folder / "generate_cpu.py").write_text("print('evil')")
    changed = nanochat("verify", str(folder), "--key", str(public), code=1)
    assert "generate_cpu.py was changed after it was signed" in changed.stderr
    wanted = nanochat("verify", str(folder), code=2)
    assert "--key" in wanted.stderr


def test_a_run_pushes_what_it_has_published(toy, tmp_path):
    nanochat = toy.nanochat
    private, _ = write_keys(tmp_path)
    with pages_served(HubPages()) as hub:
        known = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}
        known |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        with_hub = Nanochat(nanochat.home, {**nanochat.extra, **known})
        pushed = with_hub.json(*RUN_TOY, "--push", "me/toy", "--sign", str(private), "--yes")["pushed"]
        page = hub.pages["me/toy"]
        assert page.private and pushed["page"] == f"{hub.url}/me/toy"
        assert set(page.files) == set(pushed["files"]) >= {"model.sig", "model.safetensors", "README.md"}
        assert hub.token not in str(page.files) + str(pushed)
        again = with_hub(*RUN_TOY, "--push", "me/toy", "--sign", str(private), "--yes")
        assert again.stdout.rstrip().count("nothing was sent") == 1 and len(page.commits) == 1


def test_from_scratch_twice_gives_the_same_digests_stage_by_stage(tmp_path):
    words = ("toy", *overrides(SHORT))
    twice = [Nanochat(tmp_path / name, {}) for name in ("one", "two")]
    for nanochat in twice:
        nanochat("run", *words, "--threads", "1")
    first, second = (digests(nanochat, *words) for nanochat in twice)
    assert len(first) == 19 and None not in first.values()
    assert first == second


def test_metrics_of_the_run_are_in_mlflow(toy):
    import mlflow

    nanochat = toy.nanochat
    client = mlflow.MlflowClient(f"sqlite:///{nanochat.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nanochat")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    children = {
        r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id
    }
    assert set(children) == set(nanochat.json(*RUN_TOY)["nodes"])
    history = client.get_metric_history(children["pretrain"].info.run_id, "train/loss")
    assert len(history) > 50
    assert history[-1].value < history[0].value
    assert json.loads(json.dumps(children["sft"].data.tags))["nanochat.digest"] == digests(nanochat)["sft"]
