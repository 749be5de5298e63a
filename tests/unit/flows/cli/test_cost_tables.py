"""What a plan predicts as its cost: predicted, or measured where the stage ran before on this store."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.cli.cost_tables import PlanCosts
from flows.plan import make_plan
from flows.store import Store
from nanochat import recipes
from nanochat.errors import ConfigError
from tests.support.stand_ins import pretend_to_run

SMALL = ["corpus.train_shards=9", "corpus.val_shard=9"]


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def text(costs):
    console = Console(width=400, file=io.StringIO())
    for part in costs.shown():
        console.print(part)
    return console.file.getvalue()


def test_a_plan_of_d20_needs_no_network_and_shows_hours_dollars_disk_and_memory(store):
    costs = PlanCosts.of(make_plan(recipes.find("d20"), store), None)
    shown = text(costs)
    named = [line.split()[0] for line in shown.splitlines()[2 : 2 + len(costs.rows)]]
    assert named == [row.stage for row in costs.rows]
    total = next(line for line in shown.splitlines() if line.startswith("total"))
    assert "4.06e+19" in total
    assert "3 h 21 min" in total
    assert "80.41" in total
    assert "$24.00 an hour (assumed; NANOCHAT_DOLLARS_PER_HOUR sets it)" in shown
    assert "memory per GPU: at least 62.0 GB with 32 rows a pass" in shown
    assert "10.3 GB for two restart points" in shown


def test_a_price_that_was_named_is_used(store):
    plan = make_plan(recipes.find("d20", SMALL), store)
    named, assumed = PlanCosts.of(plan, 12.0), PlanCosts.of(plan, None)
    assert named.to_json()["dollars"] == pytest.approx(assumed.to_json()["dollars"] / 2)
    assert "$12.00 an hour (NANOCHAT_DOLLARS_PER_HOUR)" in text(named)


def test_what_ran_before_counts_as_measured_and_what_is_cached_as_nothing(store, tmp_path):
    (tmp_path / "made").mkdir()
    pretend_to_run(recipes.find("d20", SMALL), store, tmp_path / "made")
    again = make_plan(recipes.find("d20", [*SMALL, "sft.epochs=2"]), store)
    costs = PlanCosts.of(again, None)
    left = {row.stage: (row.seconds, row.basis) for row in costs.rows if not row.cached}
    assert left.pop("sft")[0] == pytest.approx(2 * 166)  # other steps than those that were measured
    assert left == dict.fromkeys(("evaluate_sft", "publish"), (2.0, "measured on this store"))
    assert costs.to_json()["seconds"] == pytest.approx(2 * 166 + 4)
    assert costs.to_json()["flops"] == pytest.approx(2 * 3.49e16, rel=0.01)
    finished = PlanCosts.of(make_plan(recipes.find("d20", SMALL), store), None)
    assert text(finished) == ""


def test_what_a_small_model_took_says_nothing_of_a_large_one(store, tmp_path):
    (tmp_path / "made").mkdir()
    pretend_to_run(recipes.find("toy"), store, tmp_path / "made")
    costs = PlanCosts.of(make_plan(recipes.find("d20"), store), None)
    assert {row.basis for row in costs.rows if row.stage in ("pretrain", "midtrain", "sft")}.isdisjoint(
        {"measured on this store"}
    )
    assert 3.3 < costs.to_json()["seconds"] / 3600 < 4.0


def test_new_shards_beside_known_ones_are_predicted_for_their_number_alone(store, tmp_path):
    (tmp_path / "made").mkdir()
    pretend_to_run(recipes.find("d20", SMALL), store, tmp_path / "made")
    more = ["corpus.train_shards=11", "corpus.val_shard=9"]
    costs = PlanCosts.of(make_plan(recipes.find("d20", more), store), None)
    download = next(row for row in costs.rows if row.stage == "download")
    assert download.seconds == pytest.approx(2 * 100e6 / 100e6)


def test_a_small_recipe_shows_no_hours_of_a_machine_that_it_cannot_fill(store):
    costs = PlanCosts.of(make_plan(recipes.find("toy"), store), None)
    assert text(costs) == ""
    assert costs.to_json()["seconds"] is None
    assert costs.to_json()["flops"] > 1e12


def test_stages_that_are_not_asked_for_cost_nothing(store):
    costs = PlanCosts.of(make_plan(recipes.find("d20"), store, until="tokenizer"), None)
    assert {row.stage for row in costs.rows} == {"download", "tokenizer"}
    assert costs.to_json()["flops"] == 0


def test_a_data_set_that_is_nowhere_stops_the_plan_unless_its_stage_is_not_asked_for(store):
    odd = recipes.find("d20", ["tasks.source=toy"])
    with pytest.raises(ConfigError, match=r"midtrain\.mixture names 'smoltalk', but tasks.source toy"):
        make_plan(odd, store)
    assert make_plan(odd, store, until="pretrain").nodes
