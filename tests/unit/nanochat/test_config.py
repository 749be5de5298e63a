"""Shapes that cannot be are refused with the way out, and two architectures share one configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nanochat.config import MixtureEntry, ModelConfig, TasksConfig
from nanochat.errors import ConfigError
from nanochat.recipes import find


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_head": 7}, r"n_embd is 1280, not a multiple of n_head \(7\); use 1274 or 1288"),
        ({"n_embd": 90}, r"head dimension is 9 \(n_embd 90 / n_head 10\).* use an n_embd of 80 or 100"),
        ({"n_kv_head": 4}, r"not a multiple of n_kv_head \(4\); n_kv_head can be 1, 2, 5, 10"),
        ({"n_kv_head": 20}, r"n_head is 10, not a multiple of n_kv_head \(20\)"),
        ({"window_pattern": "SL"}, "window_pattern is 'SL', but architecture 'classic' has no windows"),
        ({"architecture": "2026", "window_pattern": "SXL"}, "window_pattern is 'SXL'; it must be letters S"),
        ({"architecture": "2026", "window_pattern": ""}, "window_pattern is ''; it must be letters S"),
        ({"architecture": "2026", "n_embd": 20}, "n_embd is 20.* use 24 or more"),
        ({"architecture": "1917"}, "Input should be 'classic' or '2026'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_the_way_out(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(fields)


def test_only_2026_has_windows_and_none_given_are_upstreams() -> None:
    assert ModelConfig().window_pattern is None
    assert ModelConfig(architecture="2026").window_pattern == "SSSL"
    assert ModelConfig(architecture="2026", window_pattern=None).window_pattern == "SSSL"


def test_an_identity_has_every_field_but_locations_at_any_depth() -> None:
    recipe = find("toy")
    assert recipe.identity().keys() == type(recipe).model_fields.keys()
    assert TasksConfig.model_fields.keys() - recipe.identity()["tasks"].keys() == TasksConfig.location_fields
    assert recipe.identity()["sft"]["mixture"][0].keys() == MixtureEntry.model_fields.keys()


@pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(architecture="2026", window_pattern="SL")])
def test_a_model_configuration_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_a_recipe_changes_architecture_by_one_override() -> None:
    model = find("toy", ["pretrain.model.architecture=2026"]).pretrain.model
    assert (model.architecture, model.window_pattern) == ("2026", "SSSL")
    pattern = ["pretrain.model.architecture=2026", "pretrain.model.window_pattern=SL"]
    assert find("toy", pattern).pretrain.model.window_pattern == "SL"
    with pytest.raises(ConfigError, match="architecture 'classic' has no windows"):
        find("toy", ["pretrain.model.window_pattern=SL"])
