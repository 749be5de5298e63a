"""What a recipe will cost, from its fields alone: work, hours, disk and memory, stage by stage.

Nothing is read or downloaded for it. Training takes its operations divided by what the published machine did
per second; stages that operations do not explain (evaluations, SFT) take what they took there, scaled by the
operations per token and the share of the problems. What cannot be known before data is there is None. What a
stage really took stands in its record and is worth more than anything here.

Published figures are those of the d20 model of October 2025 on 8xH100.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nanochat.config import EvaluateConfig, MixtureEntry, Recipe
from nanochat.data import spelling
from nanochat.data.hub import is_hub, published_rows
from nanochat.model.flops import flops_per_token, parameter_count, parameter_counts, peak_flops
from nanochat.model.memory import MemoryEstimate, largest_pass
from nanochat.spelling_recipe import IDENTITY, IDENTITY_ROWS

# Below this (half a minute of the machine) starting up takes the time, and no published utilisation holds.
_LEAST_FLOPS = 1e17

_D20_FLOPS_PER_TOKEN = 3_491_758_080
_SFT_STEP_S = 166 / 651  # with its validations
_BPB_S = 66.0  # over 20 * 524,288 tokens of each split
_CORE_S = 262.0
_CHAT_S = 415.0  # mean of 425 s and 406 s
_PUBLISH_S = 30.0  # assumed: writing two folders

# Problems of the chat tasks and items of CORE's 22 tasks, for evaluations that ask only some of them.
_CHAT_PROBLEMS = {
    "arc_easy": 2_376,
    "arc_challenge": 1_172,
    "mmlu": 14_042,
    "gsm8k": 1_319,
    "humaneval": 164,
    "spelling_bee": 256,
}
_CORE_ITEMS = (
    *(10_042, 2_117, 20_321, 2_376, 1_172, 100, 1_221, 1_838, 500, 5_153, 10_042),
    *(273, 1_267, 1_000, 230, 1_320, 210, 32, 10_570, 7_983, 3_270, 10_000),
)

# Shards of both published corpora.
_SHARD_CHARACTERS, _SHARD_BYTES = 250_000_000, 100_000_000
_CHARACTERS_PER_TOKEN = 4.8

_DOWNLOAD_BYTES_PER_S = 100e6  # assumed: a link of 1 Gbit/s
_COUNTED_CHARACTERS_PER_S = 2e9 / 56.8  # the tokenizer's training, published
_ENCODED_CHARACTERS_PER_S = 160e6  # assumed: 16 cores; one encoded 12.5 million a second, reading left out
_SEARCHED_CHARACTERS_PER_S = 320e6  # assumed: 16 cores; one did 28 million a second with a part of CORE
_RENDERED_CHARACTERS_PER_S = 16e6  # measured on one core: 38 us for a conversation of 600

# Mean tokens of a rendered conversation. The 567,656 published rows of midtraining made 765 to 771 steps of
# 524,288 tokens: smoltalk's mean is what that leaves, the others follow from the bytes of their rows.
# Those of the spelling tasks were measured with upstream's tokenizer, on English words of 9.2 letters.
_ROW_TOKENS = {
    "smoltalk": 826,
    "test": 826,
    "mmlu": 210,
    "gsm8k": 190,
    "arc_easy": 90,
    "arc_challenge": 100,
    "identity": 450,  # assumed: 2.3 MB of JSON
    "spelling": 45,
    "spelling_bee": 180,
}
_HUB_BYTES = 1_300_000_000  # assumed: 403 million tokens of chat data, compressed by two, and CORE

_WEIGHT_BYTES, _STATE_BYTES = 4, 4
_RESTART_POINTS = 2  # the newest and, while it is written, the next


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What hours and dollars are predicted for."""

    name: str
    gpus: int
    peak_flops: float  # of one GPU
    utilisation: float
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
    memory_bytes=81_559 * 2**20,
    dollars_per_hour=24.0,
)


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage as predicted; None is what cannot be known yet, or does not apply."""

    stage: str
    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None  # of training alone
    seconds: float | None = None
    disk_bytes: int | None = None  # kept in the store
    beside: bool = False  # on cores that training leaves idle, while it goes on
    basis: str


@dataclass(frozen=True)
class Forecast:
    """A whole recipe as predicted."""

    machine: Machine
    stages: tuple[StageCost, ...]
    restart_bytes: int  # beside the artifacts, while a stage trains
    memory: MemoryEstimate | None  # None: not even one row fits

    @property
    def flops(self) -> float:
        """Operations of all training whose length is known."""
        return sum(stage.flops or 0.0 for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Time of the stages that have one; None for a recipe too small to predict."""
        known = [(stage, stage.seconds) for stage in self.stages if stage.seconds is not None]
        return elapsed_s(known) if known else None

    @property
    def disk_bytes(self) -> int:
        """Bytes in the store when all is made, restart points included; what is unknown is not in it."""
        return self.restart_bytes + sum(stage.disk_bytes or 0 for stage in self.stages)

    def of(self, stage: str) -> StageCost:
        """Return the cost of a stage by name."""
        return next(cost for cost in self.stages if cost.stage == stage)


def elapsed_s(timed: Iterable[tuple[StageCost, float]]) -> float:
    """Return how long stages take together, those beside the others at the same time as these."""
    lanes = {True: 0.0, False: 0.0}
    for cost, seconds in timed:
        lanes[cost.beside] += seconds
    return max(lanes.values())


def forecast(recipe: Recipe, machine: Machine = PUBLISHED) -> Forecast:
    """Predict the cost of every stage of a recipe."""
    training = (_pretrain(recipe, machine), _midtrain(recipe, machine), _sft(recipe))
    stages = (*_text_stages(recipe), _render(recipe), *training, *_evaluations(recipe), _publish(recipe))
    if sum(cost.flops or 0.0 for cost in training) < _LEAST_FLOPS:
        stages = tuple(replace(cost, seconds=None) for cost in stages)
    counts = parameter_counts(recipe.pretrain.model)
    state = 2 * sum(counts.values()) - counts["matrices"]  # one of Muon's, two of AdamW's
    restart_point = _WEIGHT_BYTES * sum(counts.values()) + _STATE_BYTES * state
    rows = recipe.pretrain.batch_tokens // recipe.pretrain.model.sequence_len
    memory = largest_pass(recipe.pretrain.model, rows, machine.gpus, machine.memory_bytes)
    return Forecast(machine, stages, _RESTART_POINTS * restart_point, memory)


def mixture_rows(recipe: Recipe, entries: Sequence[MixtureEntry]) -> int | None:
    """Return how many conversations an epoch of a mixture has; None if that takes looking at the data."""
    counted = [_entry_rows(recipe, entry) for entry in entries]
    return sum(n for n in counted if n is not None) if counted and None not in counted else None


def training_rows(recipe: Recipe, stage: str) -> int | None:
    """Return the conversations that a chat stage trains on in an epoch: those held out are not among them."""
    config = recipe.midtrain if stage == "midtrain" else recipe.sft
    rows = mixture_rows(recipe, config.mixture)
    if rows is None or recipe.tasks.own:  # these are not looked at
        return None
    if config.validation:
        return rows
    return rows - min(max(1, int(0.02 * rows)), 256)


def _entry_rows(recipe: Recipe, entry: MixtureEntry) -> int | None:
    all_rows: int | None
    if entry.task in spelling.ROWS:
        all_rows = spelling.ROWS[entry.task].get(entry.split)
    elif is_hub(recipe.tasks.source) and entry.task == "identity":
        all_rows = IDENTITY_ROWS if recipe.tasks.identity_url == IDENTITY else None
    elif is_hub(recipe.tasks.source):
        all_rows = published_rows(entry.task, entry.split)
    else:
        toy = recipe.tasks.toy if recipe.tasks.source == "toy" else None
        held_out = entry.split == "test" or entry.task == "test"
        all_rows = None if toy is None else toy.held_out if held_out else toy.questions
    if all_rows is None:
        return None
    return entry.repeat * min(entry.rows or all_rows, all_rows)


def _text_stages(recipe: Recipe) -> Iterator[StageCost]:
    shards = _shards(recipe)
    basis = "published shards of 250 million characters in 100 MB"
    if shards is None:
        for stage in ("download", "tokenizer", "tokenize", "contamination"):
            yield StageCost(stage=stage, basis="sizes of the text are not known")
    else:
        size = shards * _SHARD_BYTES
        yield StageCost(
            stage="download",
            seconds=size / _DOWNLOAD_BYTES_PER_S,
            disk_bytes=size,
            basis=f"{basis}; 1 Gbit/s",
        )
        characters = min(recipe.tokenizer.max_chars, recipe.tokenizer.train_shards * _SHARD_CHARACTERS)
        yield StageCost(
            stage="tokenizer",
            seconds=characters / _COUNTED_CHARACTERS_PER_S,
            basis="published: 2 billion characters in 57 s",
        )
        characters = shards * _SHARD_CHARACTERS
        tokens = round(characters / _CHARACTERS_PER_TOKEN)
        yield StageCost(
            stage="tokenize",
            tokens=tokens,
            seconds=characters / _ENCODED_CHARACTERS_PER_S,
            disk_bytes=tokens * _token_bytes(recipe),
            basis="4.8 characters a token; 160 million characters a second on 16 cores",
        )
        searched = (shards - 1) * _SHARD_CHARACTERS
        yield StageCost(
            stage="contamination",
            seconds=searched / _SEARCHED_CHARACTERS_PER_S,
            beside=not recipe.contamination.drop,
            basis="320 million characters a second on 16 cores",
        )
    if is_hub(recipe.tasks.source):
        seconds = _HUB_BYTES / _DOWNLOAD_BYTES_PER_S
        yield StageCost(stage="tasks", seconds=seconds, disk_bytes=_HUB_BYTES, basis="about 1.3 GB; 1 Gbit/s")
    else:
        yield StageCost(stage="tasks", basis="sizes of the chat data are not known")


def _render(recipe: Recipe) -> StageCost:
    mixtures = [_mixture_tokens(recipe, config.mixture) for config in (recipe.midtrain, recipe.sft)]
    if None in mixtures:
        return StageCost(stage="render", basis="sizes of the chat data are not known")
    held_out = [_mixture_tokens(recipe, config.validation) for config in (recipe.midtrain, recipe.sft)]
    tokens = sum(n or 0 for n in (*mixtures, *held_out))
    return StageCost(
        stage="render",
        tokens=tokens,
        seconds=tokens * _CHARACTERS_PER_TOKEN / _RENDERED_CHARACTERS_PER_S,
        disk_bytes=tokens * _token_bytes(recipe) + tokens // 8,
        beside=True,
        basis="conversations as tokens and masks; 16 million characters a second on one core",
    )


def _token_bytes(recipe: Recipe) -> int:
    return 2 if recipe.tokenizer.vocab_size <= 2**16 else 4


def _shards(recipe: Recipe) -> int | None:
    numbered = "{index" in recipe.corpus.source and recipe.corpus.train_shards is not None
    return recipe.corpus.train_shards + 1 if numbered and recipe.corpus.train_shards else None


def _pretrain(recipe: Recipe, machine: Machine) -> StageCost:
    config = recipe.pretrain
    work = flops_per_token(config.model)
    tokens = config.steps * config.batch_tokens
    measured = -(-config.steps // config.eval_every) * config.eval_tokens
    return StageCost(
        stage="pretrain",
        steps=config.steps,
        tokens=tokens,
        flops=float(tokens * work),
        seconds=(tokens + measured / 3) * work / machine.flops_per_s,  # forward only: a third of the work
        disk_bytes=_model_bytes(recipe),
        basis=f"{machine.utilisation:.0%} of the peak, as published; validations included",
    )


def _midtrain(recipe: Recipe, machine: Machine) -> StageCost:
    config = recipe.midtrain
    rows, tokens = training_rows(recipe, "midtrain"), _mixture_tokens(recipe, config.mixture)
    if rows is None or tokens is None:
        return _unknown_length(recipe, "midtrain")
    steps = config.epochs * -(-tokens // config.batch_tokens)
    trained = steps * config.batch_tokens
    work = flops_per_token(recipe.pretrain.model)
    measured = (_mixture_tokens(recipe, config.validation) or 0) * -(-steps // config.eval_every)
    return StageCost(
        stage="midtrain",
        steps=steps,
        tokens=trained,
        flops=float(trained * work),
        seconds=(trained + measured / 3) * work / machine.flops_per_s,
        disk_bytes=_model_bytes(recipe),
        basis=f"{rows:,} rows of {tokens / rows:.0f} tokens; published for d20: 765 to 771 steps",
    )


def _sft(recipe: Recipe) -> StageCost:
    config = recipe.sft
    rows, tokens = training_rows(recipe, "sft"), _mixture_tokens(recipe, config.mixture)
    if rows is None or tokens is None:
        return _unknown_length(recipe, "sft")
    steps = config.epochs * (rows // min(config.batch_rows, rows))
    scale = _scale(recipe) * config.batch_rows / 32
    return StageCost(
        stage="sft",
        steps=steps,
        tokens=config.epochs * tokens,
        flops=float(config.epochs * tokens * flops_per_token(recipe.pretrain.model)),
        seconds=steps * _SFT_STEP_S * scale,
        disk_bytes=_model_bytes(recipe),
        basis=f"{rows:,} rows; published: 0.25 s a step for d20, validations included",
    )


def _evaluations(recipe: Recipe) -> Iterator[StageCost]:
    config = recipe.evaluate
    scale = _scale(recipe)
    bits = _BPB_S / 2 * config.bpb_tokens / (20 * 524_288)  # one split of the published two
    chat = _CHAT_S * _part(config.max_problems, [_CHAT_PROBLEMS.get(t, 0) for t in config.chat_tasks])
    core = _CORE_S * _part(config.core_max_problems, _CORE_ITEMS) if config.core else 0.0
    for stage, seconds in (
        ("evaluate_base", bits + chat + core),
        ("evaluate_mid", bits + chat),
        ("evaluate_sft", bits + chat),
    ):
        yield StageCost(
            stage=stage, seconds=seconds * scale, basis=f"published times{_asked(config)}, scaled from d20"
        )


def _publish(recipe: Recipe) -> StageCost:
    return StageCost(
        stage="publish",
        seconds=_PUBLISH_S,
        disk_bytes=_model_bytes(recipe),
        basis="one more copy of the model",
    )


def _asked(config: EvaluateConfig) -> str:
    return "" if config.max_problems is None else f" for {config.max_problems} problems a task"


def _part(most: int | None, sizes: Sequence[int]) -> float:
    """Return which part of all problems is asked when `most` of each task are."""
    return sum(min(most or n, n) for n in sizes) / max(sum(sizes), 1)


def _scale(recipe: Recipe) -> float:
    return flops_per_token(recipe.pretrain.model) / _D20_FLOPS_PER_TOKEN


def _model_bytes(recipe: Recipe) -> int:
    return _WEIGHT_BYTES * parameter_count(recipe.pretrain.model)


def _mixture_tokens(recipe: Recipe, entries: Sequence[MixtureEntry]) -> int | None:
    longest = recipe.pretrain.model.sequence_len
    total = 0
    for entry in entries:
        rows, mean = _entry_rows(recipe, entry), _ROW_TOKENS.get(entry.task)
        if rows is None or mean is None:
            return None
        total += rows * min(mean, longest)
    return total if entries else None


def _unknown_length(recipe: Recipe, stage: str) -> StageCost:
    return StageCost(
        stage=stage,
        disk_bytes=_model_bytes(recipe),
        basis="its length follows from the chat data, once it is there",
    )
