"""How ops enter PyTorch: on which GPU a kernel runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from kernels.registration import on_its_device


def test_a_kernel_runs_with_the_device_of_its_first_tensor_as_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = [torch.device("cuda:0")]

    @contextlib.contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    run = on_its_device(lambda tensor, factor: (current[-1], factor))
    assert run(torch.empty(1, device="meta"), 3) == (torch.device("meta"), 3)
    assert current == [torch.device("cuda:0")]
