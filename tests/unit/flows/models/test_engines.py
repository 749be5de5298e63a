"""The engines of a server: as many as are asked for, with one copy of the weights on each device."""

from __future__ import annotations

import pytest

from flows.models.engines import find_model, make_engines
from flows.store import Store
from flows.store.fingerprint import fingerprint
from nanochat.errors import ConfigError, StoreError
from nanochat.formats.published import Choice
from tests.support.serving import write_tiny_model


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path):
    return write_tiny_model(tmp_path / "my model")


def engines(store, ref, **more):
    asked = {"device": "cpu", "weights": "auto", "count": None, "rows": 8, **more}
    return make_engines(store, str(ref), Choice(), **asked)


def test_engines_on_one_device_share_the_weights_and_nothing_else(store, folder):
    made = engines(store, folder, count=3, rows=5)
    assert [device for device, _ in made] == ["cpu"] * 3
    first, second, _ = (make() for _, make in made)
    assert first is not second and first.model is second.model
    assert first.pace.rows == 5
    assert made[0][1]() is not first  # after a failure there is a new one
    assert len(engines(store, folder)) == 1


def test_a_device_or_weights_that_there_are_not_are_refused(store, folder):
    for more in ({"device": "cuda:7"}, {"weights": "int3"}):
        with pytest.raises(ConfigError):
            engines(store, folder, **more)


def test_a_model_goes_by_its_folder_its_reference_or_its_title(store, folder):
    assert find_model(store, str(folder)) == "my model"
    with pytest.raises(StoreError):
        find_model(store, "publish")
    for stage, config in (("publish", {"title": "nanochat toy"}), ("sft", {})):
        payload = {"stage": stage, "config": config}
        key = fingerprint(payload)
        store.commit(stage=stage, node=stage, key=key, payload=payload, folder=folder, inputs={})
    assert find_model(store, "publish") == "nanochat-toy"
    assert find_model(store, "sft") == "sft"
