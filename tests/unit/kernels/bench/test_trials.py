"""A trial sees wrong, unwritten and changing numbers; each kernel's subject is right on a CPU."""

from __future__ import annotations

import itertools

import pytest
import torch

from kernels.bench import choosing, trials
from kernels.bench.shapes import D20, TINY, Cost, attention_costs, loss_costs, rotary_costs
from kernels.bench.subjects import SUBJECTS, Subject
from kernels.bench.trials import CALL, Trial, attempt
from kernels.configs import BASE, row_for

ROW = row_for("relu_squared_up", torch.bfloat16, arch=90)
TRUTH = torch.linspace(-1.0, 1.0, 64, dtype=torch.float64)


def _tried(call):
    subject = Subject(call, lambda results: results, (TRUTH,), Cost(1.0, 1.0))
    return attempt(Trial(ROW, BASE), subject, "cpu", repeats=1)


def test_a_right_variant_is_timed():
    found = _tried(lambda: (TRUTH.float(),))
    assert found.reason == ""
    assert found.times[CALL][0].median > 0


def test_wrong_numbers_are_not_timed():
    found = _tried(lambda: (1.1 * TRUTH.float(),))
    assert found.reason.startswith("wrong: relative error 0.1")
    assert not found.times


def test_a_number_that_is_not_a_number_is_wrong():
    assert _tried(lambda: (torch.full((64,), float("nan")),)).reason.startswith("wrong: relative error nan")


def test_what_is_only_right_because_memory_held_it_is_wrong():
    memory = TRUTH.float()

    def writes_half():
        memory[:32] = TRUTH[:32]
        return (memory,)

    assert "not every number is written" in _tried(writes_half).reason


def test_a_second_call_has_to_give_the_same_bytes():
    count = itertools.count()
    assert "other bytes" in _tried(lambda: (TRUTH.float() * (1 + 1e-6 * next(count)),)).reason


def test_an_exception_is_the_reason():
    def fails():
        raise RuntimeError("out of resource: shared memory\nmore")

    assert _tried(fails).reason == "RuntimeError: out of resource: shared memory"


@pytest.mark.parametrize(
    "trial", choosing.all_trials(90), ids=lambda trial: f"{trial.row[1]}, {trial.row[2]}"
)
def test_each_kernel_is_right_by_its_definition(trial):
    if trial.variant == BASE:  # the others are the same on a CPU
        subject = SUBJECTS[trial.row.kernel](trial.row, TINY, "cpu")
        assert trials._fault(subject) == ""
        assert subject.cost.flops + subject.cost.bytes > 0


def test_costs_of_d20_are_those_of_the_roofline():
    assert attention_costs(D20)["forward"].flops == pytest.approx(0.344e12, rel=1e-2)
    assert attention_costs(D20)["backward"].flops == 2.5 * attention_costs(D20)["forward"].flops
    assert loss_costs(D20)["forward+backward"].flops == pytest.approx(32.99e12, rel=1e-3)
    assert rotary_costs(D20)["forward+backward"].bytes == pytest.approx(5 * 168e6, rel=1e-2)


def test_a_class_of_one_number_of_columns_is_tried_with_as_many_and_right():
    subject = SUBJECTS["cross_entropy_rows"](ROW._replace(shape="columns=1024"), TINY, "cpu")
    assert subject.call()[1].shape == (TINY.tokens, 1024)
    assert trials._fault(subject) == ""
