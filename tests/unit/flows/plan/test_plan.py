"""Plans over the whole DAG, with stand-in artifacts: what is a hit, what runs, what waits, and why."""

from __future__ import annotations

import pytest

from flows.plan import make_plan
from flows.store import Store
from nanochat import recipes
from nanochat.errors import ConfigError
from tests.support.stand_ins import pretend_to_run

FIRST = ["corpus.train_shards=3"]


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def filled(store, tmp_path):
    (tmp_path / "made").mkdir()
    pretend_to_run(recipes.find("toy", FIRST), store, tmp_path / "made")
    return store


def actions(plan):
    return {p.node.id: p.action for p in plan.nodes}


def test_in_an_empty_store_what_needs_nothing_runs_and_the_rest_waits(store):
    plan = make_plan(recipes.find("toy"), store)
    runs = {p.node.stage.name for p in plan.nodes if p.action == "run"}
    assert runs == {"download", "tasks"}
    assert all(p.action == "wait" and p.key is None for p in plan.nodes if p.node.stage.name not in runs)
    assert (
        "waits for download, tokenizer"
        in plan.by_id["tokenize/" + plan.nodes[0].node.id.split("/")[1]].reason
    )


def test_a_second_plan_finds_everything_cached(filled):
    plan = make_plan(recipes.find("toy", FIRST), filled)
    assert plan.all_cached
    assert plan.predicted_s == 0


def test_a_plan_has_one_key_in_every_store_and_another_for_other_values(filled, tmp_path):
    toy = recipes.find("toy", FIRST)
    key = make_plan(toy, filled).key
    assert make_plan(toy, Store.open(str(tmp_path / "empty"))).key == key
    assert make_plan(recipes.find("toy", [*FIRST, "sft.epochs=2"]), filled).key != key


def test_one_changed_value_runs_its_stage_and_what_follows_and_names_the_field(filled):
    plan = make_plan(recipes.find("toy", [*FIRST, "sft.epochs=2"]), filled)
    not_cached = {p.node.id: p.action for p in plan.nodes if p.action != "hit"}
    assert not_cached == {"sft": "run", "evaluate_sft": "wait", "publish": "wait"}
    assert plan.by_id["sft"].reason == "sft.epochs 1 → 2"
    assert plan.by_id["publish"].reason == "waits for sft, evaluate_sft"
    assert plan.predicted_s == pytest.approx(6.0)


def test_a_new_shard_is_downloaded_and_tokenized_and_no_other(filled):
    plan = make_plan(recipes.find("toy", ["corpus.train_shards=4"]), filled)
    new = {p.node.id: p.action for p in plan.nodes if p.action != "hit" and "/" in p.node.id}
    assert new == {
        "download/shard_00004": "run",
        "contamination/shard_00004": "wait",
        "tokenize/shard_00004": "wait",
    }
    assert plan.by_id["pretrain"].node.inputs["val_tokens"] == "tokenize/shard_00002"
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([], None),  # all cached
        (["pretrain.seed=5"], None),
        (["corpus.train_shards=1", "tokenizer.vocab_size=700", "pretrain.model.vocab_size=700"], None),
        (["corpus.val_shard=1"], "their validation text is shard_00001, and was shard_00002"),
        (["corpus.val_shard=9"], "their validation text is shard_00009, and was shard_00002"),
        (
            ["corpus.toy.documents_per_shard=9"],
            "the content of their validation text, shard_00002, is another",
        ),
        (
            ["pretrain.eval_tokens=512"],
            "measured on the first 512 tokens of the validation text, and were on",
        ),
        (["name=other", "corpus.val_shard=1"], None),  # another recipe's bits per byte are nothing to it
    ],
)
def test_a_plan_says_when_bits_per_byte_are_no_longer_comparable(filled, changes, reason):
    plan = make_plan(recipes.find("toy", [*FIRST, *changes]), filled)
    if reason is None:
        assert plan.warnings == ()
    else:
        (warning,) = plan.warnings
        assert warning.startswith("bits per byte are not comparable with those of pretrain/")
        assert reason in warning


def test_equal_bytes_from_a_changed_stage_cut_the_rerun_short(filled, tmp_path):
    old = make_plan(recipes.find("toy", FIRST), filled)
    changed = recipes.find("toy", [*FIRST, "midtrain.sample_every=77"])
    key_of_old = old.by_id["midtrain"].key
    (tmp_path / "again").mkdir()
    pretend_to_run(changed, filled, tmp_path / "again", content={"midtrain": key_of_old})
    plan = make_plan(changed, filled)
    assert plan.by_id["midtrain"].key != key_of_old
    assert plan.by_id["sft"].key == old.by_id["sft"].key


def test_lost_bytes_are_made_again_only_where_somebody_needs_them(filled):
    recipe = recipes.find("toy", FIRST)
    plan = make_plan(recipe, filled)
    lost = plan.by_id["pretrain"].record.files[0]
    filled.storage.delete(f"blobs/{lost.sha256[:2]}/{lost.sha256}")
    assert make_plan(recipe, filled).all_cached
    again = make_plan(recipes.find("toy", [*FIRST, "midtrain.sample_every=5"]), filled)
    assert {n for n, a in actions(again).items() if a == "run"} == {"pretrain", "midtrain"}
    assert "bytes are gone" in again.by_id["pretrain"].reason


@pytest.mark.parametrize("shown", ["publish", "evaluate_base"])
def test_lost_bytes_of_what_a_run_shows_are_always_made_again(filled, shown):
    recipe = recipes.find("toy", FIRST)
    lost = make_plan(recipe, filled).by_id[shown].record.files[0]
    filled.storage.delete(f"blobs/{lost.sha256[:2]}/{lost.sha256}")
    planned = actions(make_plan(recipe, filled))
    assert {node for node, action in planned.items() if action != "hit"} == {shown}


def test_force_runs_a_cached_stage_and_until_leaves_out_what_follows(filled):
    plan = make_plan(recipes.find("toy", FIRST), filled, until="pretrain", force=["tokenizer"])
    assert plan.by_id["tokenizer"].reason == "forced"
    assert "sft" not in plan.by_id
    assert plan.by_id["pretrain"].action == "wait"


def test_an_unknown_stage_is_refused_with_the_known_ones(store):
    with pytest.raises(ConfigError) as caught:
        make_plan(recipes.find("toy"), store, until="pretrian")
    assert "pretrain" in str(caught.value.hint)


def test_a_moved_store_keeps_every_key(filled, tmp_path):
    here = make_plan(recipes.find("toy", FIRST), filled)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    there = make_plan(recipes.find("toy", FIRST), Store.open(str(tmp_path / "elsewhere")))
    assert [p.key for p in there.nodes] == [p.key for p in here.nodes]
    assert there.all_cached


@pytest.mark.parametrize("until", ["contamination", None])
def test_a_source_without_core_is_refused_before_text_is_searched_for_it(store, tmp_path, until):
    for name in ("tasks/gsm8k/train.jsonl", "tasks/gsm8k/test.jsonl"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("{}")
    fields = [f"tasks.source={tmp_path / 'data'}", "evaluate.chat_tasks=[gsm8k]", "midtrain.mixture=[]"]
    recipe = recipes.find("toy", [*fields, "sft.mixture=[]"])
    with pytest.raises(ConfigError, match=r"evaluate\.core is true, but tasks\.source"):
        make_plan(recipe, store, until=until)
