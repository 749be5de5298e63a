"""The presets against the published numbers, and the dial."""

from __future__ import annotations

import pytest

from nanochat import recipes
from nanochat.costs.derived import derived
from nanochat.costs.forecast import forecast, mixture_rows
from nanochat.errors import ConfigError


def numbers(name, *overrides):
    recipe = recipes.find(name, overrides)
    return {d.name: d.value for d in derived(recipe, forecast(recipe))}


def test_d20_resolves_to_the_published_model_and_horizon():
    d20 = recipes.find("d20")
    found = numbers("d20")
    assert d20.pretrain.steps == 21_400
    assert d20.pretrain.batch_tokens == 524_288
    assert found["pretrain.tokens"] == 11_219_763_200
    assert found["pretrain.batch_rows"] == 32 * 8
    assert found["model.parameters"] == 560_988_160
    assert found["model.tensors"] == 122
    assert found["model.head_dim"] == 128
    assert found["model.flops_per_token"] == 3_491_758_080
    assert (d20.corpus.train_shards, d20.corpus.val_shard) == (239, "239")
    assert d20.tokenizer.max_chars == 2_000_000_000


def test_d32_resolves_to_the_published_model_and_horizon():
    d32 = recipes.find("d32")
    assert d32.pretrain.steps == 71_680
    assert numbers("d32")["model.parameters"] == 1_879_048_192
    assert numbers("d32")["model.flops_per_token"] == pytest.approx(1.207960e10, rel=1e-6)
    assert (d32.corpus.train_shards, d32.corpus.val_shard) == (799, "799")
    assert d32.tokenizer.max_chars == 4_000_000_000


def test_learning_rates_are_shown_as_the_optimizer_scales_them():
    found = numbers("d20")
    assert found["pretrain.lr.lm_head"] == pytest.approx(0.0030984, rel=1e-4)
    assert found["pretrain.lr.wte"] == pytest.approx(0.154919, rel=1e-5)
    assert found["pretrain.lr.matrices"] == 0.02
    assert found["sft.lr.matrices"] == pytest.approx(0.02 * 0.02)


def test_mixtures_have_the_published_rows():
    d20 = recipes.find("d20")
    assert mixture_rows(d20, d20.midtrain.mixture) == 460_341 + 99_842 + 7_473 == 567_656
    assert mixture_rows(d20, d20.sft.mixture) == 2_251 + 1_119 + 7_473 + 10_000 == 20_843
    assert [mixture_rows(d20, [entry]) for entry in d20.midtrain.validation[1:]] == [5_200, 420]
    assert numbers("d20")["sft.steps"] == 651
    assert 765 <= numbers("d20")["midtrain.steps"] <= 771


def test_gradients_are_clipped_in_pretraining_alone():
    d20 = recipes.find("d20")
    clips = [stage.optimizer.grad_clip for stage in (d20.pretrain, d20.midtrain, d20.sft)]
    assert clips == [1.0, None, None]


def test_the_dial_derives_width_heads_and_horizon_anew():
    d4 = recipes.find("d20", ["depth=4"])
    assert (d4.name, d4.pretrain.model.n_embd, d4.pretrain.model.n_head) == ("d4", 256, 2)
    assert d4.pretrain.steps == 20 * 36_700_160 // 524_288
    assert recipes.find("toy", ["depth=3", "depth=2"]).pretrain.model.n_layer == 2


def test_the_toy_takes_any_depth():
    heads = [recipes.find("toy", [f"depth={depth}"]).model.n_head for depth in range(1, 8)]
    assert heads == [1, 1, 3, 2, 5, 3, 7]


def test_a_depth_whose_channels_do_not_split_into_heads_names_the_nearest_that_do():
    with pytest.raises(ConfigError, match="depth is 5, which gives no model: n_embd is 320") as caught:
        recipes.find("d20", ["depth=5"])
    assert caught.value.hint == "use -o depth=4 or -o depth=6"


@pytest.mark.parametrize("depth", ["0", "-3", "2.0", "true", "deep", "null", "1001", "[2]"])
def test_a_depth_that_is_no_small_whole_number_is_refused_with_its_limits(depth):
    with pytest.raises(ConfigError, match="not a whole number of at least 1 and at most 1000") as caught:
        recipes.find("d20", [f"depth={depth}"])
    assert caught.value.hint == "recipe 'd20' has depth 20"


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="no recipe 'd2'") as caught:
        recipes.find("d2")
    assert "d20" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("depth", "steps", "batch", "decay"),
    [
        (6, 1_062, 2**18, 0.9396),
        (12, 2_520, 2**19, 0.28),
        (16, 5_376, 2**19, 0.1313),
        (20, 4_980, 2**20, 0.1002),
        (24, 8_352, 2**20, 0.0597),
        (26, 10_510, 2**20, 0.0475),
        (32, 9_600, 2**21, 0.0368),
    ],
)
def test_the_2026_dial_follows_upstreams_scaling(depth, steps, batch, decay):
    found = recipes.find("2026-d12", [f"depth={depth}"]).pretrain
    assert (found.steps, found.batch_tokens) == (steps, batch)
    assert found.optimizer.weight_decay == pytest.approx(decay, abs=6e-5)
    assert found.optimizer.matrix_lr == pytest.approx(0.02 * (batch / 2**19) ** 0.5)


def test_every_2026_depth_is_a_preset_with_upstreams_schedule_and_data():
    assert [name for name in recipes.PRESETS if name.startswith("2026-")] == [
        f"2026-d{depth}" for depth in range(12, 27, 2)
    ]
    d20 = recipes.find("2026-d20")
    found = numbers("2026-d20")
    assert (found["model.parameters"], found["model.tensors"]) == (896_533_746, 147)
    assert found["model.flops_per_token"] == 2_886_212_784
    schedule = (d20.pretrain.warmup_steps, d20.pretrain.warmdown_ratio, d20.pretrain.final_lr_frac)
    assert schedule == (40, 0.65, 0.05)
    assert found["midtrain.rows"] == 460_341 + 3 * 99_842 + 4 * 7_473 == 789_759
    assert d20.corpus.val_shard == "6542"
    # The tokens of the run at 4.8 characters each must be there.
    assert d20.corpus.train_shards * 250e6 > 4.8 * found["pretrain.tokens"]


def test_an_odd_2026_depth_rounds_its_width_up_to_whole_heads():
    model = recipes.find("2026-d12", ["depth=13"]).pretrain.model
    assert (model.n_embd, model.n_head) == (896, 7)
