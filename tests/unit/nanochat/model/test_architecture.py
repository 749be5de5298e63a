"""Windows, padding and kinds of parameters of the two architectures."""

from __future__ import annotations

import pytest

from nanochat.config import ModelConfig
from nanochat.model.architecture import (
    architecture_of_state,
    has_value_embedding,
    parameter_kind,
    vocabulary_rows,
    windows,
)
from nanochat.model.gpt import GPT


def july(**fields: object) -> ModelConfig:
    return ModelConfig.model_validate({"architecture": "2026", **fields})


@pytest.mark.parametrize(
    ("sequence_len", "short"),
    [(2048, 512), (2049, 640), (2000, 512), (512, 128), (513, 256), (100, 128), (4096, 1024)],
)
def test_a_short_window_is_a_quarter_of_the_context_in_whole_tiles(sequence_len: int, short: int) -> None:
    config = july(sequence_len=sequence_len, n_layer=2)
    assert windows(config) == (short, sequence_len)


def test_the_pattern_repeats_and_the_last_layer_sees_all() -> None:
    config = july(n_layer=7, window_pattern="SSL")
    assert windows(config) == (512, 512, 2048, 512, 512, 2048, 2048)
    assert windows(july(n_layer=6)) == (512, 512, 512, 2048, 512, 2048)
    assert windows(ModelConfig(n_layer=3)) == (None, None, None)


@pytest.mark.parametrize("n_layer", [1, 4, 5])
def test_every_other_layer_has_a_value_embedding_the_last_included(n_layer: int) -> None:
    found = [has_value_embedding(july(n_layer=n_layer), layer) for layer in range(n_layer)]
    assert found == [(n_layer - 1 - layer) % 2 == 0 for layer in range(n_layer)]
    assert not any(has_value_embedding(ModelConfig(n_layer=n_layer), layer) for layer in range(n_layer))


def test_only_the_2026_vocabulary_is_padded() -> None:
    assert [vocabulary_rows(july(vocab_size=size)) for size in (64, 65, 32_768)] == [64, 128, 32_768]
    assert vocabulary_rows(ModelConfig(vocab_size=65)) == 65


def test_a_name_that_no_architecture_has_belongs_to_no_kind() -> None:
    with pytest.raises(KeyError, match="lm_heads"):
        parameter_kind("lm_heads.weight")


def test_weights_tell_their_architecture(classic: GPT, july: GPT) -> None:
    assert architecture_of_state(classic.state_dict()) == "classic"
    assert architecture_of_state(f"_orig_mod.{name}" for name in july.state_dict()) == "2026"
    assert architecture_of_state(["layers.0.weight"]) is None
