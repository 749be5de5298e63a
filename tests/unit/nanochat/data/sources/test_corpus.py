from __future__ import annotations

import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config import CorpusConfig, ShardConfig, TasksConfig, ToyWorldConfig
from nanochat.data.sources import transfer
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.corpus import download_shard, resolve_corpus
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime

TEMPLATE = "https://example.invalid/{revision}/shard_{index:05d}.parquet"
TOY = ToyWorldConfig(documents_per_shard=50, questions=40, held_out=20)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abc":
        pq.write_table(pa.table({"text": [f"text {name}", "naïve"]}), folder / f"{name}.parquet")
    (folder / "README.md").write_text("not a shard")
    return folder


def names(corpus):
    return [shard.name for shard in corpus.train], corpus.validation.name


def shards_of(corpus):
    return [*corpus.train, corpus.validation]


def test_toy_shards_differ_by_index_only():
    found = resolve_corpus(CorpusConfig(toy=TOY, train_shards=1, val_shard="0"))
    assert [(s.index, s.toy) for s in shards_of(found)] == [(1, TOY), (0, TOY)]


@pytest.mark.parametrize("source", ["toy", TEMPLATE])
def test_more_shards_leave_the_validation_shard_where_it_is(source):
    given = {"source": source, "revision": "a"} | ({} if source == "toy" else {"val_shard": "2"})
    few, more = (resolve_corpus(CorpusConfig(**given, train_shards=count)) for count in (2, 4))
    assert names(few) == (["shard_00000", "shard_00001"], "shard_00002")
    assert names(more) == (["shard_00000", "shard_00001", "shard_00003", "shard_00004"], "shard_00002")
    assert few.validation.identity() == more.validation.identity()


@pytest.mark.parametrize("val", ["b", "b.parquet"])
def test_a_folder_gives_its_parquet_files_by_name_and_keeps_the_one_that_is_named(corpus, val):
    config = CorpusConfig(source=str(corpus), val_shard=val)
    before = resolve_corpus(config)
    assert names(before) == (["a", "c"], "b")
    assert names(resolve_corpus(config.model_copy(update={"train_shards": 1}))) == (["a"], "b")
    for name in ("0", "az", "d"):  # before, between and after
        (corpus / f"{name}.parquet").write_bytes((corpus / "a.parquet").read_bytes())
    after = resolve_corpus(config)
    assert names(after) == (["0", "a", "az", "c", "d"], "b")
    assert after.validation.identity() == before.validation.identity()
    assert [s.identity() for s in after.train if s.name in "ac"] == [s.identity() for s in before.train]


@pytest.mark.parametrize("name", ["val", "Validation-00000-of-00001", "valid_2"])
def test_a_file_that_is_called_validation_is_the_validation_text(corpus, name):
    (corpus / "a.parquet").rename(corpus / f"{name}.parquet")
    (corpus / "b.parquet").rename(corpus / "value.parquet")
    assert names(resolve_corpus(CorpusConfig(source=str(corpus)))) == (["c", "value"], name)
    named = CorpusConfig(source=str(corpus), val_shard="c")  # and it is never trained on
    assert names(resolve_corpus(named)) == (["value"], "c")


def test_a_test_split_is_not_trained_on(corpus):
    for old, new in (("a", "test-00000-of-00001"), ("b", "val"), ("c", "tests")):
        (corpus / f"{old}.parquet").rename(corpus / f"{new}.parquet")
    found = resolve_corpus(CorpusConfig(source=str(corpus)))
    assert names(found) == (["tests"], "val")
    left_out = {each.why: each.paths for each in found.left_out}
    assert left_out["named as test text"] == ("test-00000-of-00001.parquet",)
    (corpus / "tests.parquet").unlink()
    with pytest.raises(ConfigError, match="no file to train on among test-00000"):
        resolve_corpus(CorpusConfig(source=str(corpus)))


@pytest.mark.parametrize("val", [None, "last", "0", "2", "1822"])
def test_a_folder_without_a_named_validation_text_is_refused_with_the_option_to_add(corpus, val):
    with pytest.raises(ConfigError) as caught:
        resolve_corpus(CorpusConfig(source=str(corpus), val_shard=val))
    assert str(corpus) in str(caught.value)
    assert caught.value.hint.startswith("use -o corpus.val_shard=c")
    option = caught.value.hint.split("=")[1].split(",")[0]
    assert names(resolve_corpus(CorpusConfig(source=str(corpus), val_shard=option)))[1] == "c"


def test_two_files_called_validation_are_refused(corpus):
    for name in ("val_0", "val_1"):
        (corpus / f"{name}.parquet").write_bytes((corpus / "a.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"val_0\.parquet, val_1\.parquet of .* are named as") as caught:
        resolve_corpus(CorpusConfig(source=str(corpus)))
    assert "corpus.val_shard=val_1" in caught.value.hint
    named = CorpusConfig(source=str(corpus), val_shard="val_1")
    assert names(resolve_corpus(named)) == (["a", "b", "c"], "val_1")


def test_a_changed_file_is_another_shard_and_its_address_is_not_its_identity(corpus, tmp_path):
    before = resolve_corpus(CorpusConfig(source=str(corpus), val_shard="c")).train
    os.utime(corpus / "a.parquet", ns=(1, 1))
    after = resolve_corpus(CorpusConfig(source=f"file://{corpus}", val_shard="c")).train
    assert before[0].identity() != after[0].identity()
    assert before[1].identity() == after[1].identity()
    corpus.rename(tmp_path / "moved")
    moved = resolve_corpus(CorpusConfig(source=str(tmp_path / "moved"), val_shard="c")).train
    assert moved[1].identity() == after[1].identity()


def test_a_numbered_source_is_resolved_without_any_network():
    config = CorpusConfig(source=TEMPLATE, revision="abc", train_shards=3, val_shard="1")
    found = resolve_corpus(config)
    assert [s.name for s in found.train] == ["shard_00000", "shard_00002", "shard_00003"]
    assert found.validation.url == "https://example.invalid/abc/shard_00001.parquet"
    assert {s.version for s in shards_of(found)} == {"abc"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_shards": None}, "train_shards is not set"),
        ({"val_shard": "last"}, "needs the number"),
        ({"revision": None}, "needs corpus.revision"),
        ({"source": "https://example.invalid/{index}/{nothing}"}, "only"),
    ],
)
def test_a_numbered_source_says_what_it_needs(changes, message):
    config = {"source": TEMPLATE, "revision": "abc", "train_shards": 3, "val_shard": "9"} | changes
    with pytest.raises(ConfigError, match=message):
        resolve_corpus(CorpusConfig(**config))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{index:05d}/data.parquet", ["data-00000", "data-00002", "data-00001"]),
        ("{index:05d}/{revision}/data.parquet?download=1", ["data-00000", "data-00002", "data-00001"]),
        ("{index}/" + "n" * 150, ["n" * 94 + f"-0000{i}" for i in (0, 2, 1)]),
        ("get?shard={index}", ["get-00000", "get-00002", "get-00001"]),
        ("part {index}.PARQUET#x", ["part-0", "part-2", "part-1"]),
    ],
)
def test_every_shard_of_a_numbered_source_has_a_name_of_its_own(path, expected):
    source = f"https://example.invalid/{path}"
    found = resolve_corpus(CorpusConfig(source=source, revision="abc", train_shards=2, val_shard="1"))
    assert [shard.name for shard in shards_of(found)] == expected
    assert len({shard.url for shard in shards_of(found)}) == 3


@pytest.mark.parametrize("path", ["data.parquet#{index}", "data.parquet#x{index:02x}"])
def test_shards_with_one_address_are_refused(path):
    source = f"https://example.invalid/{path}"
    with pytest.raises(ConfigError, match=r"shards \d+ and \d+ have the same address, https://"):
        resolve_corpus(CorpusConfig(source=source, train_shards=30, val_shard="1"))


@pytest.mark.parametrize(
    "field", ["{index:9999999999d}", "{index:.0e}", "{index.real}", "{index!r}", "{}", "{"]
)
def test_a_field_that_is_not_a_plain_number_is_refused_before_it_is_filled_in(field):
    source = f"https://example.invalid/{{index}}/{field}.parquet"
    with pytest.raises(ConfigError, match=r"only {index:05d} and {revision} are filled in \("):
        resolve_corpus(CorpusConfig(source=source, train_shards=2, val_shard="1"))


def test_unfit_sources_are_refused_with_a_way_out(corpus, tmp_path):
    def refused(kind, message, **config):
        with pytest.raises(kind, match=message) as caught:
            resolve_corpus(CorpusConfig(**({"source": str(corpus), "val_shard": "c"} | config)))
        return caught.value.hint

    assert refused(ConfigError, "train_shards is 3", train_shards=3) == "use -o corpus.train_shards=2"
    assert refused(ConfigError, "not one of the 3 files", val_shard="bb.parquet") == "did you mean b.parquet?"
    assert refused(DataError, "cannot be read", source=str(tmp_path / "nowhere"))
    assert refused(DataError, "not a path or URL", source="nonsense://x")
    assert "`.` is the folder that you are in" in refused(DataError, "corpus.source is empty", source=" ")
    (tmp_path / "empty").mkdir()
    assert refused(DataError, "no parquet files", source=str(tmp_path / "empty"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "empty" / "one.parquet")
    assert refused(ConfigError, "only one parquet file", source=str(tmp_path / "empty"))


def test_a_shard_is_copied_unchanged_and_counted(corpus, tmp_path):
    train = resolve_corpus(CorpusConfig(source=str(corpus), val_shard="c")).train
    out = tmp_path / "work" / "out"
    metrics = download_shard(train[0], {}, out, Runtime())
    assert (out / "text.parquet").read_bytes() == (corpus / "a.parquet").read_bytes()
    assert {k: metrics[k] for k in ("documents", "characters", "bytes")} == {
        "documents": 2,
        "characters": 11,
        "bytes": 12,
    }
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"body": ["a"], "id": [1]}, "no column 'text'; its columns are body, id"),
        ({"text": [1, 2]}, "holds int64, not strings"),
        ({"text": pa.array([], pa.string())}, r"no text in 0 documents \(0 null and 0 empty\)"),
        ({"text": ["", None, ""]}, r"no text in 3 documents \(1 null and 2 empty\)"),
    ],
)
def test_parquet_without_text_is_refused(table, message, tmp_path):
    path = tmp_path / "shard.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(DataError, match=message) as caught:
        download_shard(ShardConfig(name="shard", url=str(path)), {}, tmp_path / "out", Runtime())
    assert str(path) in str(caught.value)


def test_a_page_or_a_cut_file_is_not_taken_for_parquet(corpus, tmp_path):
    for name, data, message in (
        ("page", b"<!DOCTYPE html><html>", "starts with b'<!DOCTYPE"),
        ("cut", (corpus / "a.parquet").read_bytes()[:-20], "cut short"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            download_shard(ShardConfig(name=name, url=str(path)), {}, tmp_path / "out", Runtime())


def test_damaged_text_is_refused(tmp_path):
    not_utf8 = pa.array([b"\xff\xfe", b"text"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": not_utf8}), tmp_path / "bytes.parquet")
    table = pa.table({"text": ["some text that stands in the file as it is"]})
    path = tmp_path / "flipped.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, write_page_checksum=True, **plain)
    path.write_bytes(path.read_bytes().replace(b"as it is", b"as it iS", 1))
    for name, what in (("bytes", "row 0 of the group is not UTF-8"), ("flipped", "not readable")):
        shard = ShardConfig(name=name, url=str(tmp_path / f"{name}.parquet"))
        with pytest.raises(DataError, match=rf"{name}\.parquet: row group 0, column 'text': {what}"):
            download_shard(shard, {}, tmp_path / "out", Runtime())


def test_a_download_tells_megabytes_and_their_rate(corpus, tmp_path, monkeypatch):
    heard = []

    class Tracker:
        def log(self, metrics, *, step, total_steps):
            heard.append((sorted(metrics), step, total_steps))

    path = tmp_path / "shard.parquet"
    texts = [random.Random(i).randbytes(500_000).hex() for i in range(3)]
    pq.write_table(pa.table({"text": texts}), path, compression="none", use_dictionary=False)
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 1_100_000)
    shard = ShardConfig(name="shard", url=str(path))
    download_shard(shard, {}, tmp_path / "out", Runtime(tracker=Tracker()))
    rate = ["throughput/mb_per_s"]
    assert heard == [(rate, 2, 4), (rate, 3, 4), (rate, 4, 4)]


def test_toy_shards_and_tasks_are_generated(tmp_path):
    stats = download_shard(ShardConfig(name="s", index=1, toy=TOY), {}, tmp_path / "s", Runtime())
    assert stats["documents"] == 50
    config = resolve_tasks(TasksConfig(toy=TOY))
    assert config == TasksConfig(toy=TOY)
    download_tasks(config, {}, tmp_path / "t", Runtime())
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"tasks", "conversations", "core"}


def test_task_files_are_listed_and_copied_as_they_are(tmp_path, caplog):
    source = tmp_path / "source"
    taken = ("tasks/gsm8k/train.jsonl", "conversations/a.jsonl", "core/core.yaml")
    for name in (*taken, "README.md", "gsm8k/test.jsonl", "conversations/._a.jsonl", "tasks/.DS_Store"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"content of {name}")
    config = resolve_tasks(TasksConfig(source=str(source)))
    assert config.toy is None
    assert caplog.messages == [
        f"tasks.source {source}: not used, since not below tasks, conversations, core: gsm8k/test.jsonl"
    ]
    assert [f.path for f in config.files] == [
        "conversations/a.jsonl",
        "core/core.yaml",
        "tasks/gsm8k/train.jsonl",
    ]
    assert download_tasks(config, {}, tmp_path / "out", Runtime())["files"] == 3
    for file in config.files:
        assert (tmp_path / "out" / file.path).read_bytes() == (source / file.path).read_bytes()
    (source / "core/core.yaml").write_text("other")
    with pytest.raises(DataError, match="were planned"):
        download_tasks(config, {}, tmp_path / "again", Runtime())
    with pytest.raises(DataError, match="no files below"):
        resolve_tasks(TasksConfig(source=str(source / "core")))
