from __future__ import annotations

import pytest
import torch

from nanochat.errors import ConfigError
from nanochat.model.device import device_of


def test_a_machine_without_gpus_names_the_device_and_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match=f"device is '{name}' but no CUDA device was found") as raised:
            device_of(name)
        assert raised.value.hint == "use device cpu"


def test_a_gpu_that_the_machine_lacks_is_an_error_with_those_it_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(name) for name in ("cuda", "cuda:1")] == [torch.device("cuda"), torch.device("cuda:1")]
    with pytest.raises(ConfigError, match="device is 'cuda:2' but this machine's 2 CUDA devices are cuda:0"):
        device_of("cuda:2")
