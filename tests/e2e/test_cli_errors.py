"""What the command line says when something is wrong, and what programs may rely on: codes, streams, keys."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from flows.cli import app as cli
from flows.cli import output
from flows.dag import build
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import make_plan
from flows.run.execute import ExecutionContext
from flows.run.session import begin
from flows.store import Store
from nanochat import recipes
from nanochat.runtime import Runtime
from tests.e2e.conftest import ROOT, Nanochat, overrides

pytestmark = [pytest.mark.e2e]

TINY = overrides({"corpus.toy.documents_per_shard": 40, "tokenizer.vocab_size": 300})
TINY += overrides({"pretrain.model.vocab_size": 300, "tasks.toy.questions": 10, "tasks.toy.held_out": 4})


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home whose store holds the real records of a tiny recipe up to the tokenizer."""
    home = tmp_path_factory.mktemp("made") / "home"
    store = Store.open(str(home / "store"), cache=home / "cache")
    plan = make_plan(recipes.find("toy", TINY[1::2]), store, until="tokenizer")
    context = ExecutionContext(store=store, scratch=home / "scratch", runtime=Runtime(threads=1))
    with (
        Progress(output.stderr(), quiet=True) as progress,
        begin(plan, context, RunDisplay(progress=progress)) as session,
    ):
        for planned in plan.nodes:
            session.make(planned.node.id)
    return home


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `nanochat` in this process, in a home of its own unless one is given."""
    for hook in (sys, threading):  # these and the factory are what `main` sets for its whole process
        monkeypatch.setattr(hook, "excepthook", hook.excepthook)
    factory = logging.getLogRecordFactory()
    for name in [n for n in os.environ if n.startswith(("NANOCHAT_", "PREFECT_", "MLFLOW_"))]:
        monkeypatch.delenv(name)

    def call(*args: str, home: Path | None = None) -> Said:
        monkeypatch.setenv("NANOCHAT_HOME", str(home or tmp_path / "home"))
        monkeypatch.setattr(sys, "argv", ["nanochat", *args])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    yield call
    logging.setLogRecordFactory(factory)


def assert_error(said: Said | subprocess.CompletedProcess, code: int, *signs: str) -> None:
    """Assert an error a person can act on: its code, its words, nothing on stdout, no traceback."""
    if not isinstance(said, Said):
        said = Said(said.returncode, said.stdout, said.stderr)
    assert said.code == code, said
    assert said.out == ""
    assert "Traceback" not in said.err
    missing = [sign for sign in signs if sign.lower() not in said.err.lower()]
    assert not missing, f"{missing} not in: {said.err}"


# Wrong usage: exit code 2


@pytest.mark.parametrize(
    ("args", "signs"),
    [
        (("plan", "toi"), ("no recipe 'toi'", "did you mean toy?")),
        (("show", "toy", "-o", "sft.epoch=2"), ("no field 'sft.epoch'", "did you mean", "sft.epochs")),
        (("plan", "toy", "-o", "sft.epochs=zero"), ("sft.epochs is 'zero'", "integer", "nanochat show toy")),
        (("plan", "toy", "-o", "sft.epochs=0"), ("sft.epochs is 0", "greater than 0", "nanochat show toy")),
        (("plan", "toy", "-o", "depth=-1"), ("depth is -1", "at least 1")),
        (("plan", "toy", "-o", "sft.epochs"), ("'sft.epochs' has no '='", "section.field=value")),
        (
            ("plan", "toy", "-o", "pretrain.batch_tokens=1000"),
            ("batch_tokens is 1000", "multiple of model.sequence_len (256)", "use 768 or 1024"),
        ),
        (
            ("plan", "toy", "-o", "tokenizer.vocab_size=300"),
            ("tokenizer.vocab_size is 300", "pretrain.model.vocab_size is 1216", "same number"),
        ),
        (
            ("plan", "toy", "-o", "tokenizer.train_shards=9"),
            ("tokenizer.train_shards is 9", "only 2", "-o tokenizer.train_shards=2"),
        ),
        (("plan", "toy", "--until", "pretrian"), ("pretrian", "pretrain")),
        (("why", "toy", "pretrian"), ("no stage 'pretrian'", "stages: download", "pretrain")),
        (("run", "toy", "--dispatch", "cloud"), ("--dispatch is 'cloud'", "local or pools")),
        (("run", "toy", "--device", "tpu"), ("--device is 'tpu'", "cpu, cuda, or one GPU such as cuda:3")),
        (("chat", "--device", "cpu\n"), ("--device is 'cpu\\n'", "one GPU such as cuda:3")),
        (("run", "toy", "--threads", "0"), ("--threads", "greater than or equal to 1")),
        (("chat", "./nowhere"), ("./nowhere is not a folder", "pretrain, midtrain, sft, publish, import")),
        (("import", "nowhere"), ("nowhere is not a folder", "holds the published model")),
        (("import", ".", "--step", "-1"), ("--step", "greater than or equal to 0")),
        (("export", "publish", "x", "--format", "onnx"), ("'onnx'", "'nanochat', 'transformers'")),
        (("export", "publish", "x", "--layout", "deep"), ("'deep'", "'flat', 'cache'")),
        (("export", "publish"), ("missing argument 'dir'",)),
        (("plan",), ("missing argument",)),
        (("fly",), ("no such command 'fly'",)),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_told_with_its_value_its_limit_and_the_way_out(command, args, signs):
    assert_error(command(*args), 2, *signs)


def test_a_price_that_is_no_number_is_named(command, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DOLLARS_PER_HOUR", "cheap")
    assert_error(command("plan", "toy"), 2, "NANOCHAT_DOLLARS_PER_HOUR is 'cheap'", "a number such as 24")


def test_a_reference_that_is_nowhere_names_what_is_there(command, made):
    assert_error(command("inspect", "tokeniser", home=made), 1, "no record", "'tokenizer'")
    assert_error(
        command("inspect", "tokenizer/ffff", home=made), 1, "tokenizer/ffff", "the store has tokenizer/"
    )
    assert_error(command("verify", "pretrain", home=made), 1, "pretrain", "it has download, tokenizer")
    assert_error(command("chat", "-p", "Hello!", home=made), 1, "publish", "it has download, tokenizer")
    assert_error(command("eval", "tokenizer", home=made), 1, "holds no model", "pretrain, midtrain, sft")


def test_folders_that_cannot_be_imported_and_targets_in_use_are_named(command, tmp_path, made, shared_golden):
    assert_error(command("import", str(tmp_path)), 1, str(tmp_path), "no model_<step>.pt", "it holds nothing")
    golden = shared_golden / "nanochat-2025-10"
    said = command("import", str(golden), "--tag", "d20")
    assert_error(said, 2, "no checkpoint with tag d20", "there is sft d3 step 650")
    (tmp_path / "used").write_text("mine")
    said = command("export", str(golden), str(tmp_path / "used"))
    assert_error(said, 2, f"{tmp_path / 'used'} exists already", "name a new folder")
    said = command("export", "tokenizer", str(tmp_path / "x"), home=made)
    assert_error(said, 1, "holds no model", "pretrain, midtrain, sft, publish, import")
    (tmp_path / "model_000001.pt").write_bytes(b"\x80\x02cos\nsystem\n(S'touch ran'\ntR.")
    (tmp_path / "tokenizer.pkl").write_bytes(b"")
    (tmp_path / "meta_000001.json").write_text('{"model_config": {}}')
    assert_error(
        command("chat", str(tmp_path), "-p", "x"), 1, "model_000001.pt is a bare pickle", "torch.save"
    )
    assert not (tmp_path / "ran").exists()


def test_a_published_folder_is_imported_and_exported_by_command(command, tmp_path, shared_golden):
    golden, out = shared_golden / "nanochat-2025-10", tmp_path / "out"
    imported = json.loads(command("import", str(golden), "--json").out)
    assert set(imported) == {"record", "key", "digest", "cached", "format", "metrics"}
    assert json.loads(command("inspect", imported["record"], "--json").out)["digest"] == imported["digest"]
    exported = json.loads(command("export", "import", str(out), "--json").out)
    assert set(exported) == {"folder", "format", "step", "parameters", "files"}
    assert exported["step"] == imported["metrics"]["step"] == 650
    answers = [command("chat", ref, "-p", "hello", "--max-tokens", "9").out for ref in ("import", str(out))]
    assert answers[0] == answers[1] != ""


def test_a_report_of_what_never_ran_says_how_to_run_it(command):
    assert_error(command("report", "toy"), 1, "no stage of recipe 'toy'", "nanochat run toy")


# Sources that cannot be read: exit code 1 where the work failed, 2 where the settings cannot work


def test_a_source_folder_that_is_not_there_is_named(command, tmp_path):
    source = tmp_path / "nowhere"
    said = command("plan", "toy", "-o", f"corpus.source={source}")
    assert_error(said, 1, "corpus.source", str(source), "cannot be read", "check the address")
    said = command("plan", "toy", "-o", f"tasks.source={source}")
    assert_error(said, 1, "tasks.source", str(source))


def test_an_address_that_does_not_answer_is_named(command):
    said = command("plan", "toy", "-o", "corpus.source=http://127.0.0.1:9/shards/")
    assert_error(said, 1, "corpus.source", "http://127.0.0.1:9/shards/", "check the address")


def test_a_scheme_that_nobody_knows_is_named(command):
    said = command("plan", "toy", "-o", "corpus.source=gopher://host/shards")
    assert_error(said, 1, "gopher", "s3://bucket/folder")


def test_an_empty_corpus_folder_says_what_to_give(command, tmp_path):
    said = command("plan", "toy", "-o", f"corpus.source={tmp_path}")
    assert_error(said, 1, str(tmp_path), "no parquet files", "folder that holds the .parquet files")


def test_a_corpus_of_one_file_would_train_on_its_validation_text(command, tmp_path):
    write_shards(tmp_path / "corpus", 1)
    said = command("plan", "toy", "-o", f"corpus.source={tmp_path / 'corpus'}")
    assert_error(said, 2, "only one parquet file", "add a second file")


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_parquet_without_text_fails_its_stage_and_names_the_columns(tmp_path, prefect_api):
    write_shards(tmp_path / "corpus", 2, column="body")
    nanochat = Nanochat(tmp_path / "home", {"PREFECT_API_URL": prefect_api})
    source = f"corpus.source={tmp_path / 'corpus'}"
    shards = ("-o", source, "-o", "corpus.train_shards=1", "-o", "corpus.val_shard=shard_00001")
    words = (*shards, "--until", "download", "--threads", "1")
    done = nanochat("run", "toy", *words, code=1)
    last = done.stderr[done.stderr.index("error:") :]
    signs = ("stage download/shard_0000", "no column 'text'", "its columns are body", "rename the column")
    assert_error(Said(1, done.stdout, last), 1, *signs)
    assert nanochat.json("ls") == []  # nothing of it entered the store


def write_shards(folder: Path, count: int, column: str = "text") -> None:
    folder.mkdir()
    for i in range(count):
        pq.write_table(pa.table({column: [f"document {i}"] * 20}), folder / f"shard_{i:05d}.parquet")


# Stores that cannot be used


def test_wrong_s3_credentials_say_which_variables_to_set(command, s3_store_url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    said = command("ls", "--store", s3_store_url)
    assert_error(said, 1, s3_store_url, "credentials were refused", "AWS_SECRET_ACCESS_KEY")
    said = command("plan", "toy", "--store", s3_store_url)
    assert_error(said, 1, "credentials were refused", "AWS_ACCESS_KEY_ID")


def test_a_bucket_that_is_not_there_is_an_outage_and_no_empty_store(command, s3_store_url):
    said = command("plan", "toy", "--store", "s3://no-such-bucket/store")
    assert_error(said, 1, "'no-such-bucket' does not exist", "correct --store")


def test_a_store_that_is_a_file_is_named(command, tmp_path):
    (tmp_path / "file").write_text("not a store")
    assert_error(command("ls", "--store", str(tmp_path / "file")), 1, "is a file", "correct --store")


@pytest.fixture
def on_a_small_disk(tmp_path):
    """Run `nanochat` in a mount namespace of its own, where commands of the shell prepare real disks."""
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    disk = tmp_path / "disk"
    disk.mkdir()
    probe = f"mount -t tmpfs -o size=1m none {disk}"
    if not shutil.which("unshare") or subprocess.run([*space, "sh", "-c", probe], check=False).returncode:
        pytest.skip("no mount namespaces for this user: cannot make a real small disk")

    def call(prepare: str, nanochat: Nanochat, *args: str) -> subprocess.CompletedProcess:
        script = f'set -e; {prepare.format(disk=disk)}; exec "$@"'
        command = [*space, "sh", "-c", script, "sh", sys.executable, "-m", "flows", *args]
        return subprocess.run(
            command, cwd=ROOT, env=nanochat.env, capture_output=True, text=True, timeout=300, check=False
        )

    call.store = disk / "store"
    return call


def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(on_a_small_disk, made):
    read_only = f"mount --bind {made} {{disk}}; mount -o remount,bind,ro {{disk}}"
    nanochat = Nanochat(made, {})
    listed = on_a_small_disk(read_only, nanochat, "ls", "--json", "--store", str(on_a_small_disk.store))
    assert listed.returncode == 0 and json.loads(listed.stdout)
    said = on_a_small_disk(
        read_only, nanochat, "gc", "--keep", "tokenizer", "--store", str(on_a_small_disk.store)
    )
    assert_error(said, 1, "access denied", "Read-only file system", "choose another --store")


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_full_disk_fails_the_stage_and_the_same_command_continues_once_there_is_space(
    on_a_small_disk, tmp_path, prefect_api, made
):
    nanochat = Nanochat(on_a_small_disk.store.parent / "home", {"PREFECT_API_URL": prefect_api})
    run = (*["run", "toy", "--until", "tokenizer", "--threads", "1", "--json"], *TINY)
    full = f"mount -t tmpfs -o size=32k none {{disk}}; ! $@ > {tmp_path}/out 2> {tmp_path}/err"
    done = on_a_small_disk(f"{full}; mount -o remount,size=8m {{disk}}", nanochat, *run)
    said = (tmp_path / "err").read_text()
    signs = ("no space left for", "of its disk are free", "nanochat gc", "free space", "NANOCHAT_HOME")
    assert_error(Said(1, (tmp_path / "out").read_text(), said[said.index("error:") :]), 1, *signs)
    nodes = json.loads(done.stdout)["nodes"]
    stored = Store.open(str(made / "store")).records()
    assert {name: node["digest"] for name, node in nodes.items()} == {r.node: r.digest for r in stored}


def test_a_home_that_cannot_be_written_is_named(on_a_small_disk, command, tmp_path):
    nanochat = Nanochat(on_a_small_disk.store.parent / "home", {})
    said = on_a_small_disk("mount -t tmpfs -o ro none {disk}", nanochat, "run", "toy")
    assert_error(said, 1, str(nanochat.home), "access denied (Read-only file system)", "NANOCHAT_HOME")
    (tmp_path / "file").write_text("mine")
    said = command("run", "toy", home=tmp_path / "file" / "home")
    assert_error(said, 1, f"{tmp_path / 'file'} is a file, where a folder is needed")
    (tmp_path / "link").symlink_to("gone")
    said = command("run", "toy", "--store", str(tmp_path / "store"), home=tmp_path / "link")
    assert_error(said, 1, f"{tmp_path / 'link'} is a link to gone, which does not exist")


# Help and data for programs


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_describes_the_command_and_each_of_its_words(command, name):
    said = command(name, "--help")
    assert said.code == 0 and said.err == ""
    one = commands()[name]
    assert one.help and one.help.splitlines()[0] in " ".join(said.out.split())
    for parameter in one.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
        assert shown in said.out or shown.lower() in said.out


NODE = {
    "node", "stage", "action", "reason", "key", "digest", "code_drift", "last_seconds", "changes",
}  # fmt: skip
RECORD = {
    "stage", "node", "key", "digest", "payload", "files", "attachments", "metrics", "provenance", "inputs",
}  # fmt: skip
KEYS = {
    "recipes": {"recipe", "depth", "about"},
    "show": {
        "name", "depth", "corpus", "tasks", "tokenizer", "tokenize", "contamination", "pretrain",
        "midtrain", "sft", "evaluate", "publish",
    },
    "plan": {
        *("recipe", "text", "all_cached", "predicted_seconds", "predicted_dollars", "nodes", "forecast"),
        "warnings",
    },
    "why": NODE,
    "ls": RECORD,
    "inspect": RECORD | {"lineage", "contents"},
    "run": {"nodes", "results", "published"},
    "gc": {"dry_run", "records", "names", "freed_bytes", "kept_records"},
}  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ("recipes",),
        ("show", "toy"),
        ("plan", "toy", *TINY),
        ("why", "toy", "tokenizer", *TINY),
        ("ls",),
        ("inspect", "tokenizer"),
        ("run", "toy", *TINY, "--until", "tokenizer"),
        ("gc", "--dry-run", "--without-roots"),
    ],
    ids=lambda args: args[0],
)
def test_json_is_all_there_is_on_stdout_and_keeps_its_keys(command, made, args):
    said = command(*args, "--json", home=made)
    assert said.code == 0, said.err
    data = json.loads(said.out)
    for part in data if isinstance(data, list) else [data]:
        assert set(part) == KEYS[args[0]]
    if args[0] == "plan":
        assert all(set(node) == NODE for node in data["nodes"])
        assert {n["node"] for n in data["nodes"]} == {n.id for n in build(recipes.find("toy", TINY[1::2]))}
    if args[0] == "run":
        assert all(set(n) == {"key", "digest", "executed"} for n in data["nodes"].values())


def test_verify_as_json_names_what_is_damaged_and_fails(command, made, tmp_path):
    home = tmp_path / "copy"
    shutil.copytree(made, home)
    assert json.loads(command("verify", "--json", home=home).out) == []
    blob = next(p for p in (home / "store" / "blobs").rglob("*") if p.is_file() and p.stat().st_size)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * blob.stat().st_size)
    said = command("verify", "--json", home=home)
    assert said.code == 1
    found = json.loads(said.out)
    assert [set(f) for f in found] == [{"kind", "name", "problem", "used_by"}]
    assert blob.name in found[0]["name"]


def test_tables_are_on_stdout_and_remarks_beside_them(command, made):
    said = command("plan", "toy", *TINY, home=made)
    assert said.code == 0
    assert said.out.startswith("stage") and "nodes cached" in said.err and "nodes cached" not in said.out
    empty = command("ls")
    assert (empty.code, empty.out) == (0, "") and "no records yet" in empty.err
