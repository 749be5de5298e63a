"""The short training that a GPU and a CPU share: what is prepared, and when the two are too far apart."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from infra.gpu.prepare import extend_curve, prepare_text
from kernels.measurement import Measurement
from nanochat.train.loop import StepResult
from tests.benchmarks import short_training as short
from tests.benchmarks.gpu_training import Run, cpu_curve
from tests.benchmarks.short_training import Curve, Text

TEXT = Text.made_up(short.TINY)


def test_the_toy_world_stands_in_for_text_and_is_read_back(tmp_path):
    written = prepare_text(tmp_path, [], short.TINY)
    read = Text.load(tmp_path)
    assert np.array_equal(read.train, written.train) and np.array_equal(read.val, written.val)
    assert read.vocabulary == written.vocabulary
    document = read.train[1 : np.flatnonzero(read.train == read.train[0])[1]]
    assert b"".join(read.vocabulary[token] for token in document).decode()
    assert read.token_bytes[read.train[0]] == 0  # bos
    assert len(read.val) == short.TINY.val_rows * short.TINY.length + 1


def test_a_curve_that_was_interrupted_is_the_one_of_a_single_run(tmp_path):
    folder, state = tmp_path / "out", tmp_path / "state"
    folder.mkdir()
    for wanted in (1, 2):
        curve = extend_curve(folder, state, TEXT, short.TINY, minutes=0)
        assert len(curve.losses) == wanted
    curve = extend_curve(folder, state, TEXT, short.TINY, minutes=5)
    whole = cpu_curve(short.TINY, TEXT)
    assert (curve.losses, curve.norms, curve.start) == (whole.losses, whole.norms, whole.start)
    assert Curve.load(folder) == curve


def test_an_epoch_has_no_window_twice_and_targets_follow_inputs():
    config = short.config_for(short.TINY, TEXT, "float32", compiled=False)
    plan, length = short.plan_for(config, TEXT), short.TINY.length
    windows = (len(TEXT.train) - 1) // length
    inputs, targets = zip(
        *(plan.batch(step, slice(None)) for step in range(windows // plan.batch_rows)), strict=True
    )
    rows = [bytes(row) for row in np.concatenate(inputs).astype(np.uint16)]
    possible = {bytes(row) for row in TEXT.train[: windows * length].reshape(-1, length)}
    assert len(set(rows)) == len(rows) > windows - plan.batch_rows
    assert set(rows) <= possible
    assert all(np.array_equal(x[:, 1:], y[:, :-1]) for x, y in zip(inputs, targets, strict=True))
    assert np.array_equal(plan.batch(1, slice(2, 4))[0], plan.batch(1, slice(None))[0][2:4])


@pytest.mark.parametrize(
    ("loss_off", "norm_factor", "wrong"),
    [
        (0.005, 1.005, []),
        (0.02, 1.0, ["losses follow the CPU's"]),
        (0.0, 0.95, ["gradient norms follow the CPU's"]),
    ],
)
def test_steps_that_leave_the_curve_are_wrong(tmp_path, loss_off, norm_factor, wrong):
    curve = Curve(1.0, losses=[4.0, 3.0, 2.0], norms=[1.0, 0.5, 0.25])
    run = Run(argparse.Namespace(), Measurement("training", tmp_path, {}), short.TINY, TEXT, curve)
    losses, norms = [4.0, 3.0 - loss_off, 2.0, 9.0], [1.0, 0.5 * norm_factor, 0.25, 9.0]
    run.check_curve(
        [
            StepResult(step=n, loss=loss, grad_norm=norm, lr_multiplier=1.0, tokens=8, seconds=0.1)
            for n, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)
        ]
    )
    assert run.kept.wrong == wrong
    assert len(run.kept.checks) == 2
