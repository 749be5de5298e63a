"""Which stage feeds which, where a recipe's fields change it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows import dag
from nanochat import recipes
from nanochat.config import ShardConfig
from nanochat.data.sources.corpus import Corpus
from nanochat.errors import ConfigError


def nodes(*overrides):
    return {node.id: node for node in dag.build(recipes.find("toy", ["corpus.train_shards=3", *overrides]))}


def test_each_training_shard_is_searched_and_the_validation_shard_is_not():
    built = nodes()
    searched = [i for i in built if i.startswith("contamination/")]
    assert searched == [f"contamination/shard_{i:05d}" for i in (0, 1, 3)]
    assert built[searched[1]].inputs == {"shard": "download/shard_00001", "tasks": "tasks"}
    assert built["publish"].inputs["contamination"] == tuple(searched)


def test_tokens_wait_for_the_search_only_where_documents_are_dropped():
    assert set(nodes()["tokenize/shard_00000"].inputs) == {"shard", "tokenizer"}
    dropping = nodes("contamination.drop=true")
    assert dropping["tokenize/shard_00003"].inputs["contamination"] == "contamination/shard_00003"
    assert set(dropping["tokenize/shard_00002"].inputs) == {"shard", "tokenizer"}


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("contamination.drop=true", False),
        ("evaluate.max_problems=3", False),
        ("evaluate.max_new_tokens=9", False),
        ("contamination.ngram_words=8", True),
        ("evaluate.chat_tasks=[mmlu]", True),
        ("evaluate.core=false", True),
    ],
)
def test_the_search_depends_on_what_it_looks_for_and_on_nothing_else(override, changes):
    before, after = (nodes(*o)["contamination/shard_00000"] for o in ((), (override,)))
    assert (before != after) == changes
    assert replace(after, config=before.config) == before


def test_two_nodes_with_one_id_are_refused(monkeypatch):
    a, b = (ShardConfig(name="data", url=f"https://example.invalid/{i}/data.parquet") for i in range(2))
    monkeypatch.setattr(dag, "resolve_corpus", lambda _: Corpus((a,), b))
    with pytest.raises(ConfigError, match=r"the id download/data: https://.*/0/data.*/1/data"):
        dag.build(recipes.find("toy"))


def test_inputs_come_before_the_nodes_that_need_them():
    seen = set()
    for node in nodes("contamination.drop=true").values():
        assert seen.issuperset(dag.input_ids(node))
        seen.add(node.id)
