"""Upstream's training step on one GPU of eight, the baseline of `bench_gpu_step.py`.

The model of `plain_nanochat` as upstream trains it on GPUs: compiled, under bfloat16 autocast, the embedding
kept in bfloat16, whole logits capped in float32, micro-batches as large as fit. Each rank of upstream
updates an eighth: here its rows of embedding and head by fused AdamW, its matrices one by one by Muon with a
compiled iteration. Gradients are clipped by the rank's own norm; nothing is sent, so what the other ranks
own stays as it is. Source: upstream nanochat of October 2025.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from nanochat.config import ModelConfig
from nanochat.train.micro_batch import is_out_of_memory
from tests.benchmarks.plain_nanochat import PlainGPT, newton_schulz

OPTIMIZER = "step: optimizer"  # the profiler's name of what is neither forward nor backward

Compiler = Callable[[Callable], Callable]


class RankMuon:
    """Muon of some matrices of the model, one after the other."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, compiler: Compiler) -> None:
        self.matrices, self.lr = matrices, lr
        self.buffers = [torch.zeros_like(p) for p in matrices]
        self.iterate = compiler(newton_schulz)

    @torch.no_grad()
    def step(self, momentum: float) -> None:
        for p, buffer in zip(self.matrices, self.buffers, strict=True):
            buffer.lerp_(p.grad, 1 - momentum)
            update = self.iterate(p.grad.lerp(buffer, momentum))
            p.add_(update.float(), alpha=-self.lr * max(1.0, p.size(0) / p.size(1)) ** 0.5)


class RankTrainer:
    """Model and optimizers of one rank; `train` trains on its rows and returns their loss."""

    def __init__(
        self,
        config: ModelConfig,
        state: Mapping[str, Tensor],
        owned: Mapping[str, slice],
        *,
        device: str,
        compiler: Compiler,
    ) -> None:
        """Build the model from `state`; `owned` are the rows of each parameter that this rank updates."""
        with torch.device(device):
            self.model = PlainGPT(config)
        self.model.load_state_dict(state)
        self.model.transformer["wte"].to(torch.bfloat16)
        self.device, self.passes, self.rows = device, compiler(self.model), 0
        names = dict(self.model.named_parameters())
        scale = (config.n_embd / 768) ** -0.5
        rates = {"lm_head.weight": 0.004 * scale, "transformer.wte.weight": 0.2 * scale}
        self.tables = {name: names[name] for name in rates}
        self.slices = {name: (owned[name], nn.Parameter(names[name].detach()[owned[name]])) for name in rates}
        groups = [{"params": [part], "lr": rates[name]} for name, (_, part) in self.slices.items()]
        self.adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
        matrices = [names[name] for name in owned if name not in rates]
        self.muon = RankMuon(matrices, 0.02, compiler)

    def fit_rows(self, inputs: Tensor, targets: Tensor) -> None:
        """Find the most rows, halving, whose pass fits into memory."""
        self.rows = inputs.size(0)
        while not self._fits(inputs, targets):
            self.rows //= 2
            if not self.rows:
                raise torch.OutOfMemoryError("not even one row fits")

    def train(self, inputs: Tensor, targets: Tensor, momentum: float) -> float:
        loss = self._gradients(inputs, targets)
        with record_function(OPTIMIZER):
            self._update(momentum)
        return float(loss)

    def _update(self, momentum: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for name, (rows, part) in self.slices.items():
            part.grad = self.tables[name].grad[rows]
        self.adamw.step()
        self.muon.step(momentum)
        self.model.zero_grad(set_to_none=True)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), device=self.device)
        parts = list(zip(inputs.split(self.rows), targets.split(self.rows), strict=True))
        for x, y in parts:
            with torch.autocast(self.device, torch.bfloat16):
                loss = self.passes(x, y) / len(parts)
            loss.backward()
            total += loss.detach()
        return total

    def _fits(self, inputs: Tensor, targets: Tensor) -> bool:
        fits = True
        try:
            self._gradients(inputs[: self.rows], targets[: self.rows])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        self.model.zero_grad(set_to_none=True)
        if self.device == "cuda":
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
        return fits
