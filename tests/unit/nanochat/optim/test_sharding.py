"""Many processes against one that accumulates as many micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn import Parameter

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.sharding import Sharding
from tests.support.ranks import on_ranks

VOCABULARY, LENGTH, ROWS = 321, 13, 2
OPTIMIZER = OptimizerConfig(grad_clip=0.3, weight_decay=0.1)


def made(architecture: str, noise: float = 0.02) -> GPT:
    """Return a model in which no gradient vanishes."""
    config = ModelConfig(
        architecture=architecture,
        sequence_len=16,
        vocab_size=VOCABULARY,
        n_layer=3,
        n_head=2,
        n_kv_head=2,
        n_embd=24,
    )
    model = GPT(config)
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.empty(parameter.shape).normal_(std=noise, generator=generator)
    return model


def train(
    model: GPT, optimizer: ModelOptimizer, steps: range, mine: list[int], micro_batches: int
) -> list[float]:
    """Take steps on some micro-batches of each batch; return the gradient norms."""
    norms = []
    for step in steps:
        for number in mine:
            generator = torch.Generator().manual_seed(1000 * step + number)
            tokens = torch.randint(0, VOCABULARY, (ROWS, LENGTH + 1), generator=generator)
            loss = model(tokens[:, :-1], tokens[:, 1:], loss_reduction="sum")
            loss = loss / (micro_batches * ROWS * LENGTH)
            if number == mine[-1]:
                with optimizer.reducing():
                    loss.backward()
            else:
                loss.backward()
        norms.append(float(optimizer.clip()))
        optimizer.step(0.9, 0.9, 0.5)
    return norms


def weights(model: GPT) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def alone(architecture: str, micro_batches: int, steps: int) -> tuple[GPT, ModelOptimizer, list[float]]:
    model = made(architecture)
    optimizer = ModelOptimizer(model, OPTIMIZER)
    return model, optimizer, train(model, optimizer, range(steps), list(range(micro_batches)), micro_batches)


def a_rank_trains(architectures: list[str]) -> dict[str, Any]:
    """Train each architecture for a step and then another, each rank on its micro-batch."""
    group = distributed.group.WORLD
    results: dict[str, Any] = {}
    for architecture in architectures:
        model = made(architecture)
        optimizer = ModelOptimizer(model, OPTIMIZER, group=group)
        results[architecture] = {}
        for step in (0, 1):
            norms = train(model, optimizer, range(step, step + 1), [group.rank()], group.size())
            results[architecture][step] = {
                "norms": norms,
                "weights": weights(model),
                "state": optimizer.state_dict(),
            }
    return results


def a_rank_continues(architecture: str, saved: dict[str, Any]) -> dict[str, Any]:
    """Take step 1 of three micro-batches from a saved state."""
    group = distributed.group.WORLD
    model = made(architecture)
    model.load_state_dict(saved["weights"], strict=False)
    optimizer = ModelOptimizer(model, OPTIMIZER, group=group)
    optimizer.load_state_dict(saved["state"])
    norms = train(model, optimizer, range(1, 2), list(range(3))[group.rank() :: group.size()], 3)
    return {"norms": norms, "weights": weights(model), "state": optimizer.state_dict()}


def a_rank_has_no_rows() -> dict[str, Any]:
    """Only the last rank has a micro-batch."""
    group = distributed.group.WORLD
    model = made("classic")
    optimizer = ModelOptimizer(model, OPTIMIZER, group=group)
    if group.rank() == group.size() - 1:
        return {"norms": train(model, optimizer, range(1), [0], 1), "weights": weights(model)}
    with optimizer.reducing():
        pass
    norm = float(optimizer.clip())
    optimizer.step(0.9, 0.9, 0.5)
    return {"norms": [norm], "weights": weights(model)}


def a_rank_launches_early() -> dict[str, Any]:
    """Count the exchanges that have begun when the backward pass is at the first layer's output."""
    group = distributed.group.WORLD
    model = made("classic")
    optimizer = ModelOptimizer(model, OPTIMIZER, group=group)
    sharding, begun = optimizer._sharding, []
    model.transformer.h[1].register_full_backward_hook(lambda *_: begun.append(sharding._launched))
    train(model, optimizer, range(1), [group.rank()], group.size())
    return {"begun": begun, "all": len(sharding._buckets)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(2, a_rank_trains, ["classic", "2026"])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(3, a_rank_trains, ["classic", "2026"])


@pytest.mark.parametrize("architecture", ["classic", "2026"])
@pytest.mark.parametrize("world", [2, 3])
def test_many_processes_give_the_weights_of_one_that_accumulates(
    architecture: str, world: int, request: pytest.FixtureRequest
) -> None:
    ranks = request.getfixturevalue("two" if world == 2 else "three")
    for step in (0, 1):
        model, _, norms = alone(architecture, world, step + 1)
        assert norms[-1] > OPTIMIZER.grad_clip  # so that a wrong norm shows in the weights
        for result in (rank[architecture][step] for rank in ranks):
            assert result["norms"] == pytest.approx(norms[-1:], rel=1e-6)
            # The same bits on the machine this was written on; a differing last bit may become 1e-4 in Muon.
            for name, weight in weights(model).items():
                torch.testing.assert_close(result["weights"][name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_the_state_is_whole_and_the_same_for_any_number_of_processes(
    architecture: str, two: list[dict[str, Any]], three: list[dict[str, Any]]
) -> None:
    for world, ranks in ((2, two), (3, three)):
        expected = alone(architecture, world, 2)[1].state_dict()
        state = ranks[0][architecture][1]["state"]
        assert state["steps"] == expected["steps"] == 2
        assert state["parameters"].keys() == expected["parameters"].keys()
        for name, tensors in expected["parameters"].items():
            for key, tensor in tensors.items():
                torch.testing.assert_close(state["parameters"][name][key], tensor, atol=1e-6, rtol=1e-5)
        assert all(rank[architecture][1]["state"] == {} for rank in ranks[1:])


def test_a_state_of_two_processes_continues_on_one_and_on_three(
    two: list[dict[str, Any]],
) -> None:
    saved = two[0]["2026"][0]
    model = made("2026")
    model.load_state_dict(saved["weights"], strict=False)
    optimizer = ModelOptimizer(model, OPTIMIZER)
    optimizer.load_state_dict(saved["state"])
    train(model, optimizer, range(1, 2), [0, 1, 2], 3)
    on_three = on_ranks(3, a_rank_continues, "2026", saved)
    for name, weight in weights(model).items():
        torch.testing.assert_close(on_three[2]["weights"][name], weight, atol=1e-6, rtol=0, msg=name)
    for name, tensors in optimizer.state_dict()["parameters"].items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(
                on_three[0]["state"]["parameters"][name][key], tensor, atol=1e-6, rtol=1e-5
            )


def test_a_process_without_rows_adds_nothing() -> None:
    model, _, norms = alone("classic", 1, 1)
    for result in on_ranks(2, a_rank_has_no_rows):
        assert result["norms"] == pytest.approx(norms, rel=1e-6)
        for name, weight in weights(model).items():
            torch.testing.assert_close(result["weights"][name], weight, atol=1e-6, rtol=0, msg=name)


def test_exchanges_begin_during_the_backward_pass() -> None:
    for result in on_ranks(2, a_rank_launches_early):
        [begun] = result["begun"]
        # The head, and pairs of matrices of the last layer; not those that hold one of an earlier layer.
        assert 1 < begun < result["all"]


def test_one_process_has_every_parameter_as_its_shard() -> None:
    model = made("classic")
    sharding = Sharding(dict(model.named_parameters()), {}, None)
    assert {name: shard.weight for name, shard in sharding.shards.items()} == dict(model.named_parameters())


def test_a_lonely_parameter_without_gradient_is_named() -> None:
    named = {"used": Parameter(torch.ones(3)), "lonely": Parameter(torch.ones(3))}
    named["used"].grad = torch.ones(3)
    with pytest.raises(ValueError, match="lonely has no gradient, while others have"):
        Sharding(named, {}, None).reduce()


def test_without_any_gradient_all_are_zero() -> None:
    model = made("classic")
    optimizer = ModelOptimizer(model, OptimizerConfig())
    before = weights(model)
    assert float(optimizer.clip()) == 0.0
    optimizer.step(1.0, 0.9)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_a_state_of_another_shape_is_refused_by_name() -> None:
    state = ModelOptimizer(made("classic"), OPTIMIZER).state_dict()
    state["parameters"]["lm_head.weight"]["exp_avg"] = torch.zeros(320, 24)
    with pytest.raises(DataError, match=r"\(320, 24\) as exp_avg of lm_head.weight, not .* \(321, 24\)"):
        ModelOptimizer(made("classic"), OPTIMIZER).load_state_dict(state)
