"""What scoring a model again takes from the records of others, which may hold anything."""

from __future__ import annotations

import pytest

from flows.models.score import evaluate_model
from flows.store import Store
from flows.store.fingerprint import fingerprint
from nanochat.errors import ConfigError, StoreError


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (None, StoreError, "evaluate_base/[0-9a-f]{12} does not say what it was made with"),
        ({"max_problems": "many"}, ConfigError, "max_problems is 'many', not a whole number"),
    ],
)
def test_settings_of_an_evaluation_that_are_none_are_named(tmp_path, config, error, message):
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "made").mkdir()
    (tmp_path / "made/file").write_text("content")

    def commit(stage, **inputs):
        lines = {
            name: {"stage": r.stage, "key": r.key, "digest": r.digest, "node": r.node}
            for name, r in inputs.items()
        }
        payload = {"stage": stage, "config": config}
        return store.commit(
            stage=stage,
            node=stage,
            key=fingerprint(payload),
            payload=payload,
            folder=tmp_path / "made",
            inputs=lines,
        )

    tokens = commit("tokenize", shard=commit("download"))
    commit("evaluate_base", val_tokens=tokens, tasks=commit("tasks"))
    with pytest.raises(error, match=message):
        evaluate_model(store, commit("import"))
