"""Long listings and lineages are shown in part, and say how much more there is."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.store import Store
from flows.store.fingerprint import fingerprint


@pytest.fixture
def nanochat(tmp_path, monkeypatch):
    """A store of five shards and a model made from them, and how to call a verb on it."""
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    store, out = Store.open(str(tmp_path / "store")), tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("the same")

    def put(stage, node, inputs):
        payload = {"node": node}
        return store.commit(
            stage=stage, node=node, key=fingerprint(payload), payload=payload, folder=out, inputs=inputs
        )

    shards = [put("tokenize", f"tokenize/{n}", {}) for n in range(5)]
    lines = [{"stage": r.stage, "node": r.node, "key": r.key, "digest": r.digest} for r in shards]
    put("pretrain", "pretrain", {"train_tokens": lines})

    def call(*words):
        result = CliRunner().invoke(app, [*words, "--store", store.url], env={"COLUMNS": "200"})
        assert result.exception is None, result.output
        return result

    return call


def listed(result):
    return [record["node"] for record in json.loads(result.stdout)]


def test_pages_follow_each_other_from_new_to_old_and_say_how_many_there_are(nanochat):
    pages = [nanochat("ls", "--limit", "2", "--page", str(n), "--json") for n in (1, 2, 3, 4)]
    nodes = [node for page in pages for node in listed(page)]
    assert sorted(nodes) == ["pretrain", *(f"tokenize/{n}" for n in range(5))]
    assert "2 of 6 records: page 1 of 3" in pages[0].stderr
    assert listed(pages[3]) == []


def test_all_are_listed_at_once_where_they_fit_or_are_asked_for(nanochat):
    for words in (("ls",), ("ls", "--limit", "2", "--all"), ("ls", "--limit", "6")):
        result = nanochat(*words)
        assert len(result.stdout.splitlines()) == 7 and "records" not in result.stderr
    assert len(nanochat("ls", "tokenize", "--limit", "4").stdout.splitlines()) == 5


def test_a_lineage_shows_a_few_of_many_shards_unless_all_are_asked_for(nanochat):
    few, whole = nanochat("inspect", "pretrain").stdout, nanochat("inspect", "pretrain", "--all").stdout
    assert "├── tokenize/2" in few and "└── … and 2 more tokenize" in few and "tokenize/3" not in few
    assert "└── tokenize/4" in whole and "more" not in whole
    assert len(json.loads(nanochat("inspect", "pretrain", "--json").stdout)["lineage"]) == 5
