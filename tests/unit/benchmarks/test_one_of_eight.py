"""The seven ranks that a benchmark of one GPU does without."""

from __future__ import annotations

import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.recipes import find
from tests.benchmarks.gpu_configs import CONFIGS
from tests.benchmarks.one_of_eight import others_restored, owned, world

SHAPE = ModelConfig(sequence_len=16, vocab_size=36, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


def test_the_benchmark_trains_what_the_recipes_do():
    for name, config in CONFIGS.items():
        recipe = find(name).pretrain
        assert config == recipe.model_copy(update={"prompts": ()})


def test_gradients_are_those_of_eight_equal_ranks_and_only_the_own_rows_change():
    ranks, model = world(), GPT(SHAPE)
    model.init_weights(torch.Generator().manual_seed(1))
    optimizer = ModelOptimizer(model, OptimizerConfig(grad_clip=None), group=ranks.group)
    mine, before = owned(model, ranks.group), {n: p.detach().clone() for n, p in model.named_parameters()}
    restore = others_restored(model, mine)
    idx = torch.arange(32).view(2, 16)
    (counted,) = ranks.total(idx.numel())
    (model(idx, idx, loss_reduction="sum") / counted).backward()
    expected = torch.linalg.vector_norm(
        torch.cat([8 * p.grad[mine[n]].flatten() for n, p in model.named_parameters() if n in mine])
    )
    assert torch.isclose(optimizer.clip(), expected * 8**0.5)  # eight ranks own as much each
    optimizer.step(1.0, 0.9)
    restore()
    changed = {n: (p != before[n]).any(dim=1).nonzero().flatten() for n, p in model.named_parameters()}
    assert all(n in mine for n, rows in changed.items() if len(rows))
    assert changed["lm_head.weight"].tolist() == [0, 1, 2, 3, 4]  # of 36 rows over eight ranks
    assert all(mine[n].start <= int(rows.min()) <= int(rows.max()) < mine[n].stop
               for n, rows in changed.items() if len(rows))  # fmt: skip
