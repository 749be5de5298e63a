"""What stages and those around them share."""

from __future__ import annotations

from nanochat.runtime import dotted


def test_nested_settings_have_dotted_names_and_an_empty_level_is_a_value():
    settings = {"model": {"shape": {"n_layer": 4}, "extra": {}}, "steps": 3, "prompts": ["a"]}
    assert dotted(settings) == {"model.shape.n_layer": 4, "model.extra": {}, "steps": 3, "prompts": ["a"]}
    assert dotted({}) == {}
