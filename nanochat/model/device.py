"""The device that a setting names, if this machine has it."""

from __future__ import annotations

import torch

from nanochat.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device of a name such as cpu, cuda or cuda:1; ConfigError if this machine lacks it."""
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r} but no CUDA device was found", hint="use device cpu")
    found = torch.cuda.device_count()
    if device.index is not None and device.index >= found:
        raise ConfigError(
            f"device is {name!r} but this machine's {found} CUDA devices are cuda:0 to cuda:{found - 1}",
            hint="use one of them, or device cpu",
        )
    return device
