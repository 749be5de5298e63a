"""Two steps of d20 as one of eight GPUs takes them: that they fit, and that the loss falls."""

from __future__ import annotations

import gc
import math

import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT
from nanochat.train.loop import training_steps
from nanochat.train.micro_batch import fitting_cut
from tests.gpu.models import SHAPES, configured, plan, started

_ROWS = 32


def test_two_steps_of_d20_fit_and_the_loss_falls(device, sizes, keep):
    full = sizes == "full"
    config, rows = (ModelConfig(), _ROWS) if full else (configured("classic", sizes), SHAPES[sizes].rows)
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(1))
    model.precision = torch.bfloat16
    state = started(model.to(device))
    run = plan(config, rows, 2, same=True)
    cut = fitting_cut(state, run)
    if device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    first, second = training_steps(state, run, cut)
    keep(losses=[first.loss, second.loss], seconds=[first.seconds, second.seconds])
    assert abs(first.loss - math.log(config.vocab_size)) < 1e-3  # the head starts at zero
    assert second.loss < first.loss - 0.1
    if device == "cuda":
        peak, of = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(device).total_memory
        allocated = torch.cuda.max_memory_allocated() / 2**30
        keep(
            rows_of_a_pass=cut.rows_of(config.sequence_len, device),
            peak_gib=allocated,
            reserved_gib=peak / 2**30,
        )
        assert peak < of
