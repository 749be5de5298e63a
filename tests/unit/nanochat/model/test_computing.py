"""How passes are computed: as one graph for the compiler, and in bfloat16 where that is asked for."""

from __future__ import annotations

import torch

from nanochat.model.gpt import GPT


def loss_and_gradients(passes: GPT, model: GPT) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tokens = torch.randint(0, 97, (3, 13), generator=torch.Generator().manual_seed(2))
    loss = passes(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.detach(), gradients


def test_a_training_pass_is_one_graph_with_the_same_numbers(model: GPT) -> None:
    loss, gradients = loss_and_gradients(model, model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    same_loss, same = loss_and_gradients(compiled, model)
    torch.testing.assert_close(same_loss, loss)
    assert same.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_a_training_pass_in_bfloat16_is_one_graph_too(model: GPT) -> None:
    model.precision = torch.bfloat16
    loss, gradients = loss_and_gradients(model, model)
    same_loss, same = loss_and_gradients(torch.compile(model, backend="aot_eager", fullgraph=True), model)
    assert torch.equal(same_loss, loss)
    assert same.keys() == gradients.keys()


def test_bfloat16_rounds_products_and_keeps_weights_and_gradients_in_float32(model: GPT) -> None:
    loss, gradients = loss_and_gradients(model, model)
    model.precision = torch.bfloat16
    rounded_loss, rounded = loss_and_gradients(model, model)
    assert rounded_loss.dtype == torch.float32
    # Products of 8 bits in three layers: the mean over 36 targets and each gradient's direction hardly move.
    assert rounded_loss != loss
    torch.testing.assert_close(rounded_loss, loss, rtol=0.02, atol=0)
    for name, gradient in gradients.items():
        assert rounded[name].dtype == torch.float32
        if gradient.norm() > 1e-3:
            assert torch.cosine_similarity(rounded[name].flatten(), gradient.flatten(), dim=0) > 0.95, name
