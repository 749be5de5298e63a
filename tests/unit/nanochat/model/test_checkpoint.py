"""Saved models come back whole, and broken ones are refused by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.errors import DataError
from nanochat.model.checkpoint import load_config, load_model, model_from_state, save_model
from nanochat.model.gpt import GPT
from nanochat.model.mapped_memory import let_go


@pytest.fixture
def folder(tmp_path: Path, model: GPT) -> Path:
    save_model(tmp_path, model)
    return tmp_path


def test_a_saved_model_comes_back_bit_for_bit(folder: Path, model: GPT) -> None:
    loaded = load_model(folder)
    assert loaded.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_equal_models_give_equal_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("again")
    save_model(other, load_model(folder))
    for name in ("model.safetensors", "config.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of mapped memory")
def test_weights_stay_in_the_file_or_are_the_models_own_as_asked(folder: Path) -> None:
    def mapped_at() -> list[range]:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        spans = [
            line.split()[0].split("-") for line in lines if line.endswith(str(folder / "model.safetensors"))
        ]
        return [range(int(start, 16), int(end, 16)) for start, end in spans]

    loaded = load_model(folder, mapped=True)
    weights, places = list(loaded.parameters()), mapped_at()
    assert all(any(weight.data_ptr() in place for place in places) for weight in weights)
    before = weights[0].clone()
    let_go(weights[0].data)
    assert torch.equal(weights[0], before)
    own = load_model(folder)
    assert not any(weight.data_ptr() in place for place in mapped_at() for weight in own.parameters())


def test_bfloat16_and_compiled_names_are_read(model: GPT) -> None:
    state = {f"_orig_mod.{n}": w.bfloat16() for n, w in model.state_dict().items()}
    loaded = model_from_state(model.config, state, source="here")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_model(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path, model: GPT) -> None:
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = torch.zeros(96, 32)
    save_file(state, folder / "model.safetensors")
    shapes = rf"lm_head\.weight has shape \(96, 32\), expected \({len(model.lm_head.weight)}, 32\)"
    with pytest.raises(DataError, match=rf"model\.safetensors .*{shapes}"):
        load_model(folder)


def test_weights_of_the_other_architecture_are_refused_by_name(classic: GPT, july: GPT) -> None:
    with pytest.raises(
        DataError, match=r"x does not fit architecture '2026' .*resid_lambdas is missing"
    ) as old:
        model_from_state(july.config, classic.state_dict(), source="x")
    with pytest.raises(DataError, match=r"x does not fit architecture 'classic' .* is not part of it") as new:
        model_from_state(classic.config, july.state_dict(), source="x")
    assert "weights of architecture 'classic'" in str(old.value.hint)
    assert "weights of architecture '2026'" in str(new.value.hint)


def test_weights_of_the_right_architecture_that_do_not_fit_are_not_taken_for_the_other(july: GPT) -> None:
    state = july.state_dict()
    del state["smear_lambda"]
    with pytest.raises(DataError, match=r"'2026'.*: smear_lambda is missing$") as caught:
        model_from_state(july.config, state, source="x")
    assert caught.value.hint is None


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"architecture": "1917"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json is not a model configuration"):
        load_model(folder)


def test_a_cut_off_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    state = load_file(folder / "model.safetensors")
    state["transformer.h.1.mlp.c_fc.weight"][3, 5] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"safetensors: 1 of the .* weights in transformer\.h\.1\.mlp\.c_fc"):
        load_model(folder)
    wide = {name: weight.double() for name, weight in load_file(folder / "model.safetensors").items()}
    wide["transformer.h.1.mlp.c_fc.weight"][3, 5] = 1e300  # finite there, but not in float32
    with pytest.raises(DataError, match=r"there: 1 of the .* are not finite numbers"):
        model_from_state(load_config(folder), wide, source="there")


def test_rotary_tables_are_made_for_the_positions_that_are_used(classic: GPT) -> None:
    hostile = GPT(classic.config.model_copy(update={"sequence_len": 131_072}))
    assert hostile.cos.size(1) == 32_768
    first = hostile.cos
    cos, sin = hostile._turns(torch.arange(40_000), 40_000)
    assert cos.size(1) == sin.size(1) == 40_000
    assert torch.equal(cos[:, :32_768], first)
    usual = GPT(classic.config.model_copy(update={"sequence_len": 2048}))
    assert usual.cos.size(1) == 20_480 and torch.equal(usual.cos, first[:, :20_480])
