from __future__ import annotations

import pytest

from flows.run.headline import published_model
from flows.store import Record


@pytest.mark.parametrize("recipe", ["toy", "d20-v1.5", "a.b_c", "..."])
def test_a_published_model_has_a_name_that_mlflow_takes(recipe: str) -> None:
    record = Record(stage="publish", node="publish", key="ab" * 32, payload={}, files=())
    model = published_model(recipe, {"publish": record})
    assert model is not None and model.name.startswith("nanochat-")
    assert not set(model.name) & set("/:.%\"'")
