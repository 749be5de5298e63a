"""What a plan asks of the store, counted: it grows with the number of shards and nothing is asked twice."""

from __future__ import annotations

from collections import Counter

import pytest

from flows.plan import make_plan
from flows.plan import plan as plan_module
from flows.stages import STAGES
from flows.store import ArtifactFile, Record, Store
from flows.store.fingerprint import fingerprint
from flows.store.records import record_name, to_bytes
from nanochat import recipes
from tests.support.stand_ins import pretend_to_run


class Counts:
    """Counts what is listed, read and looked up in a storage from now on."""

    def __init__(self, storage, monkeypatch):
        self.listed, self.read, self.looked_up = Counter(), Counter(), Counter()
        for operation, counter in (
            ("listing", self.listed),
            ("read_as", self.read),
            ("found", self.looked_up),
        ):
            monkeypatch.setattr(storage, operation, _counted(getattr(storage, operation), counter))

    @property
    def total(self):
        return sum(c.total() for c in (self.listed, self.read, self.looked_up))


def _counted(operation, counter):
    def call(name, *rest):
        counter[name] += 1
        return operation(name, *rest)

    return call


def recipe_of(shards, *overrides):
    return recipes.find("toy", [f"corpus.train_shards={shards - 1}", *overrides])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Address of a store in which recipes of 10, 20 and 40 shards have run."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "made").mkdir()
    store = Store.open(str(folder / "store"))
    for shards in (10, 20, 40):
        pretend_to_run(recipe_of(shards), store, folder / "made")
    return store.url


def counts_of_plan(url, monkeypatch, recipe):
    store = Store.open(url)
    counts = Counts(store.storage, monkeypatch)
    return make_plan(recipe, store), counts


def test_operations_of_a_plan_grow_in_proportion_to_its_shards(filled, monkeypatch):
    few, some, many = (
        counts_of_plan(filled, monkeypatch, recipe_of(shards))[1].total for shards in (10, 20, 40)
    )
    assert few > 60  # three records and three blobs a shard: the counting works
    assert some - few == pytest.approx(6 * 10, abs=4)
    assert many - some == pytest.approx(6 * 20, abs=4)


def test_an_empty_store_costs_a_listing_a_stage_whatever_the_number_of_shards(tmp_path, monkeypatch):
    for shards in (10, 40):
        plan, counts = counts_of_plan(str(tmp_path / "empty"), monkeypatch, recipe_of(shards))
        assert {p.action for p in plan.nodes} == {"run", "wait"}
        assert counts.listed == {f"records/{stage}": 1 for stage in STAGES}
        assert counts.total == len(STAGES)


@pytest.mark.parametrize(
    "changed",
    [
        (),
        ("tokenizer.vocab_size=800", "pretrain.model.vocab_size=800"),
        ("corpus.toy.documents_per_shard=10",),
    ],
)
def test_each_stage_is_listed_once_and_each_record_read_once(filled, monkeypatch, changed):
    plan, counts = counts_of_plan(filled, monkeypatch, recipe_of(40, *changed))
    assert plan.all_cached == (not changed)
    assert counts.listed == {f"records/{stage}": 1 for stage in STAGES}
    assert set(counts.read.values()) == {1}
    assert set(counts.looked_up.values()) <= {1}


def test_one_missing_shard_does_not_read_the_others_again(filled, monkeypatch):
    plan, counts = counts_of_plan(filled, monkeypatch, recipe_of(41))
    assert any(p.action == "run" for p in plan.nodes)
    assert set(counts.listed.values()) == {1}
    assert set(counts.read.values()) == {1}


def test_what_a_node_is_compared_with_is_sought_among_the_newest_records_only(tmp_path, monkeypatch):
    store = Store.open(str(tmp_path / "store"))
    files = (ArtifactFile("result", 1, "0" * 64),)
    for n in range(100):
        for stage, node in (("sft", "sft"), ("download", f"download/other_{n}"), ("pretrain", "pretrain")):
            payload = {"stage": stage, "version": 1, "config": {"n": n}, "inputs": {}}
            record = Record(stage=stage, node=node, key=fingerprint(payload), payload=payload, files=files)
            store.storage.write(record_name(stage, record.key), to_bytes(record))
    plan, counts = counts_of_plan(store.url, monkeypatch, recipe_of(10))
    read = Counter(name.split("/")[1] for name in counts.read)
    assert read == {"sft": 1 + 8, "download": 10 + 8, "pretrain": 64}  # of these, for one of the same recipe
    (was,) = (change.before for change in plan.by_id["sft"].changes if change.field == "sft.n")
    assert was >= 90
    reason = next(p.reason for p in plan.nodes if p.node.stage.name == "download")
    assert reason == "not among the 18 newest of 100 records of its stage"
    assert plan.by_id["tasks"].reason == "not in this store yet"


def test_the_code_of_a_stage_is_digested_once_a_plan(filled, monkeypatch):
    from flows.plan import code_digest

    code_digest.code_digest.cache_clear()
    make_plan(recipe_of(40), Store.open(filled))
    assert plan_module.code_digest.cache_info().misses <= len(STAGES)
