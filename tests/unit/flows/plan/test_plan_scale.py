"""What a plan asks of the store, counted: it grows with the number of shards and nothing is asked twice."""

from __future__ import annotations

from collections import Counter

import pytest

from flows.plan import make_plan
from flows.plan import plan as plan_module
from flows.stages import STAGES
from flows.store import Store
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


def test_the_code_of_a_stage_is_digested_once_a_plan(filled, monkeypatch):
    from flows.plan import code_digest

    code_digest.code_digest.cache_clear()
    make_plan(recipe_of(40), Store.open(filled))
    assert plan_module.code_digest.cache_info().misses <= len(STAGES)
