"""Figures that forecasts rest on: of the d20 model of October 2025 on 8xH100, published or assumed.

Constants only; what follows from them for a recipe is `nanochat.costs.forecast`'s work.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.model.flops import peak_flops

D20_FLOPS_PER_TOKEN = 3_491_758_080
SFT_STEP_S = 166 / 651  # with its validations
PUBLISH_S = 30.0  # assumed: writing two folders

SHARD_BYTES = 100_000_000  # of both published corpora
DOWNLOAD_BYTES_PER_S = 100e6  # assumed: a link of 1 Gbit/s
COUNTED_CHARACTERS_PER_S = 2e9 / 56.8  # the tokenizer's training, published
ENCODED_CHARACTERS_PER_S = 160e6  # assumed: 16 cores; one encoded 12.5 million a second, reading left out
SEARCHED_CHARACTERS_PER_S = 320e6  # assumed: 16 cores; one did 28 million a second with a part of CORE
RENDERED_CHARACTERS_PER_S = 16e6  # measured on one core: 38 us for a conversation of 600

# Mean tokens of a rendered conversation; those of tasks are in their table. The 567,656 published rows of
# midtraining made 765 to 771 steps of 524,288 tokens: smoltalk's mean is what the tasks in them leave.
CONVERSATION_TOKENS = {
    "smoltalk": 826,
    "test": 826,
    "identity": 450,  # assumed: 2.3 MB of JSON
}
HUB_BYTES = 1_300_000_000  # assumed: 403 million tokens of chat data, compressed by two, and CORE


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What hours and dollars are predicted for."""

    name: str
    gpus: int
    peak_flops: float  # of one GPU
    utilisation: float
    memory_bytes_per_s: float  # of one GPU
    memory_bytes: float  # of one GPU
    dollars_per_hour: float

    @property
    def flops_per_s(self) -> float:
        """Operations per second in training, all GPUs together."""
        return self.gpus * self.peak_flops * self.utilisation


PUBLISHED = Machine(
    name="8xH100",
    gpus=8,
    peak_flops=peak_flops("NVIDIA H100 80GB HBM3") or 0.0,
    utilisation=0.48,
    memory_bytes_per_s=3.35e12,
    memory_bytes=81_559 * 2**20,
    dollars_per_hour=24.0,
)
