"""A run that was stopped and goes on in new objects ends in the same bytes as one that was not."""

from __future__ import annotations

import pytest
import torch

from nanochat.runtime import FolderRestartPoints
from nanochat.train.loop import training_steps
from tests.gpu.models import ARCHITECTURES, SHAPES, configured, made, plan, started, tensors

_RUN = {"config": "of this test"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_resumed_run_ends_in_the_same_bytes(architecture, device, sizes, tmp_path):
    config, rows = configured(architecture, sizes), SHAPES[sizes].rows
    points = FolderRestartPoints(tmp_path)
    whole = started(made(config, device, torch.bfloat16))
    losses = [result.loss for result in training_steps(whole, plan(config, rows, 4))]

    stopped = started(made(config, device, torch.bfloat16))
    again = [result.loss for result in training_steps(stopped, plan(config, rows, 2))]
    stopped.save(points, _RUN)
    resumed = started(made(config, device, torch.bfloat16, seed=2))
    assert resumed.restore(points, _RUN)
    again += [result.loss for result in training_steps(resumed, plan(config, rows, 4))]

    assert again == losses
    expected, found = tensors(whole), tensors(resumed)
    assert found.keys() == expected.keys()
    assert [name for name, x in expected.items() if not torch.equal(x, found[name])] == []
