from __future__ import annotations

import pytest

from flows.run.headline import headline, published_model
from flows.store import Record


@pytest.mark.parametrize("recipe", ["toy", "d20-v1.5", "a.b_c", "..."])
def test_a_published_model_has_a_name_that_mlflow_takes(recipe: str) -> None:
    record = Record(stage="publish", node="publish", key="ab" * 32, payload={}, files=())
    model = published_model(recipe, {"publish": record})
    assert model is not None and model.name.startswith("nanochat-")
    assert not set(model.name) & set("/:.%\"'")


@pytest.mark.parametrize(
    "damaged", ["x", [1], 10**400, float("nan"), None], ids=["text", "list", "huge", "nan", "none"]
)
def test_a_time_or_price_that_is_not_a_number_is_left_out_of_the_sums(damaged: object) -> None:
    records = {
        str(number): Record(
            stage="download",
            node=f"download/{number}",
            key="ab" * 32,
            payload={},
            files=(),
            provenance={"seconds": value, "dollars": value},
        )
        for number, value in enumerate((3600.0, damaged))
    }
    assert headline(records) == {"hours": 1.0, "dollars": 3600.0}
