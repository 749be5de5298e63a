"""What a recipe will cost, from its fields alone: work, hours, disk and memory, stage by stage.

Nothing is read or downloaded for it. Training takes its operations divided by what the published machine did
per second; evaluations are counted (`nanochat.costs.evaluation_cost`); SFT, which operations do not explain,
takes what it took there, scaled by the operations per token. What cannot be known before data is there is
None. What a stage really took is in its record, which is worth more than anything here.

Published figures are those of the d20 model of October 2025 on 8xH100.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nanochat.config import (
    MidtrainConfig,
    MixtureEntry,
    Recipe,
    SftConfig,
    bytes_per_token,
    held_out_rows,
)
from nanochat.costs.evaluation_cost import evaluation_basis, evaluation_seconds, evaluation_work
from nanochat.costs.reference_figures import (
    CONVERSATION_TOKENS,
    COUNTED_CHARACTERS_PER_S,
    D20_FLOPS_PER_TOKEN,
    DOWNLOAD_BYTES_PER_S,
    ENCODED_CHARACTERS_PER_S,
    HUB_BYTES,
    PUBLISH_S,
    PUBLISHED,
    RENDERED_CHARACTERS_PER_S,
    SEARCHED_CHARACTERS_PER_S,
    SFT_STEP_S,
    SHARD_BYTES,
    Machine,
)
from nanochat.data.chat.task_files import is_own_task
from nanochat.data.chat.task_table import TASKS
from nanochat.data.sources.hub import is_hub, published_rows
from nanochat.model.flops import flops_per_token, parameter_count
from nanochat.model.memory_estimate import MemoryEstimate, largest_pass, optimizer_numbers
from nanochat.recipes.shared import CHARACTERS_PER_TOKEN, SHARD_CHARACTERS
from nanochat.recipes.spelling import IDENTITY, IDENTITY_ROWS

# Below this (half a minute of the machine) startup takes the time, and no published utilisation applies.
_LEAST_FLOPS = 1e17


_WEIGHT_BYTES, _STATE_BYTES = 4, 4
_RESTART_POINTS = 2  # the newest and, while it is written, the next


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
        """Bytes in the store when all is made, restart points included; what is unknown is left out."""
        return self.restart_bytes + sum(stage.disk_bytes or 0 for stage in self.stages)

    def of(self, stage: str) -> StageCost:
        """Return the cost of a stage by name; nothing is known of one that is not predicted here."""
        unknown = StageCost(stage=stage, basis="not predicted")
        return next((cost for cost in self.stages if cost.stage == stage), unknown)


def elapsed_s(timed: Iterable[tuple[StageCost, float]]) -> float:
    """Return how long stages take together; those `beside` others at the same time as these."""
    lanes = {True: 0.0, False: 0.0}
    for cost, seconds in timed:
        lanes[cost.beside] += seconds
    return max(lanes.values())


def forecast(recipe: Recipe, machine: Machine = PUBLISHED) -> Forecast:
    """Predict the cost of every stage of a recipe."""
    training = (_pretrain(recipe, machine), _midtrain(recipe, machine), _sft(recipe))
    stages = (
        *_text_stages(recipe),
        _render(recipe),
        *training,
        *_evaluations(recipe, machine),
        _publish(recipe),
    )
    if sum(cost.flops or 0.0 for cost in training) < _LEAST_FLOPS:
        stages = tuple(replace(cost, seconds=None) for cost in stages)
    model = recipe.pretrain.model
    restart_point = _WEIGHT_BYTES * parameter_count(model) + _STATE_BYTES * optimizer_numbers(model)
    rows = recipe.pretrain.batch_tokens // model.sequence_len
    memory = largest_pass(model, rows, machine.gpus, machine.memory_bytes)
    return Forecast(machine, stages, _RESTART_POINTS * restart_point, memory)


def mixture_rows(recipe: Recipe, entries: Sequence[MixtureEntry]) -> int | None:
    """Return how many conversations an epoch of a mixture has; None if that takes looking at the data."""
    counted = [_entry_rows(recipe, entry) for entry in entries]
    return sum(n for n in counted if n is not None) if counted and None not in counted else None


def training_rows(recipe: Recipe, config: MidtrainConfig | SftConfig) -> int | None:
    """Return the conversations that a chat stage trains on in an epoch: those held out are not among them."""
    rows = mixture_rows(recipe, config.mixture)
    if rows is None or recipe.tasks.own:  # these are not looked at
        return None
    if config.validation:
        return rows
    return rows - held_out_rows(rows)


def _entry_rows(recipe: Recipe, entry: MixtureEntry) -> int | None:
    if is_own_task(entry.task):
        return None  # not looked at
    all_rows: int | None
    task = TASKS.get(entry.task)
    if task and task.from_words:
        all_rows = task.splits[entry.split].rows if entry.split in task.splits else None
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
    basis = f"published shards of {_millions(SHARD_CHARACTERS)} characters in {SHARD_BYTES // 10**6} MB"
    if shards is None:
        for stage in ("download", "tokenizer", "tokenize", "contamination"):
            yield StageCost(stage=stage, basis="sizes of the text are not known")
    else:
        size = shards * SHARD_BYTES
        yield StageCost(
            stage="download",
            seconds=size / DOWNLOAD_BYTES_PER_S,
            disk_bytes=size,
            basis=f"{basis}; 1 Gbit/s",
        )
        characters = min(recipe.tokenizer.max_chars, recipe.tokenizer.train_shards * SHARD_CHARACTERS)
        yield StageCost(
            stage="tokenizer",
            seconds=characters / COUNTED_CHARACTERS_PER_S,
            basis="published: 2 billion characters in 57 s",
        )
        characters = shards * SHARD_CHARACTERS
        tokens = round(characters / CHARACTERS_PER_TOKEN)
        yield StageCost(
            stage="tokenize",
            tokens=tokens,
            seconds=characters / ENCODED_CHARACTERS_PER_S,
            disk_bytes=tokens * bytes_per_token(recipe.tokenizer.vocab_size),
            basis=f"{CHARACTERS_PER_TOKEN} characters a token;"
            f" {_millions(ENCODED_CHARACTERS_PER_S)} characters a second on 16 cores",
        )
        searched = (shards - 1) * SHARD_CHARACTERS
        yield StageCost(
            stage="contamination",
            seconds=searched / SEARCHED_CHARACTERS_PER_S,
            beside=not recipe.contamination.drop,
            basis=f"{_millions(SEARCHED_CHARACTERS_PER_S)} characters a second on 16 cores",
        )
    if is_hub(recipe.tasks.source):
        seconds = HUB_BYTES / DOWNLOAD_BYTES_PER_S
        yield StageCost(
            stage="tasks",
            seconds=seconds,
            disk_bytes=HUB_BYTES,
            basis=f"about {HUB_BYTES / 1e9:.1f} GB; 1 Gbit/s",
        )
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
        seconds=tokens * CHARACTERS_PER_TOKEN / RENDERED_CHARACTERS_PER_S,
        disk_bytes=tokens * bytes_per_token(recipe.tokenizer.vocab_size) + tokens // 8,
        beside=True,
        basis="conversations as tokens and masks;"
        f" {_millions(RENDERED_CHARACTERS_PER_S)} characters a second on one core",
    )


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
    rows, tokens = training_rows(recipe, config), _mixture_tokens(recipe, config.mixture)
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
    rows, tokens = training_rows(recipe, config), _mixture_tokens(recipe, config.mixture)
    if rows is None or tokens is None:
        return _unknown_length(recipe, "sft")
    steps = config.epochs * (rows // min(config.batch_rows, rows))
    scale = _scale(recipe) * config.batch_rows / 32
    return StageCost(
        stage="sft",
        steps=steps,
        tokens=config.epochs * tokens,
        flops=float(config.epochs * tokens * flops_per_token(recipe.pretrain.model)),
        seconds=steps * SFT_STEP_S * scale,
        disk_bytes=_model_bytes(recipe),
        basis=f"{rows:,} rows; published: {SFT_STEP_S:.2f} s a step for d20, validations included",
    )


def _evaluations(recipe: Recipe, machine: Machine) -> Iterator[StageCost]:
    for stage in ("evaluate_base", "evaluate_mid", "evaluate_sft"):
        work = evaluation_work(recipe.evaluate, base=stage == "evaluate_base")
        yield StageCost(
            stage=stage,
            seconds=evaluation_seconds(recipe, machine, work),
            basis=evaluation_basis(recipe.evaluate, work),
        )


def _publish(recipe: Recipe) -> StageCost:
    return StageCost(
        stage="publish",
        seconds=PUBLISH_S,
        disk_bytes=_model_bytes(recipe),
        basis="one more copy of the model",
    )


def _millions(count: float) -> str:
    return f"{count / 1e6:.0f} million"


def _scale(recipe: Recipe) -> float:
    return flops_per_token(recipe.pretrain.model) / D20_FLOPS_PER_TOKEN


def _model_bytes(recipe: Recipe) -> int:
    return _WEIGHT_BYTES * parameter_count(recipe.pretrain.model)


def _mixture_tokens(recipe: Recipe, entries: Sequence[MixtureEntry]) -> int | None:
    longest = recipe.pretrain.model.sequence_len
    total = 0
    for entry in entries:
        rows, mean = _entry_rows(recipe, entry), _row_tokens(entry.task)
        if rows is None or mean is None:
            return None
        total += rows * min(mean, longest)
    return total if entries else None


def _row_tokens(task: str) -> int | None:
    return TASKS[task].row_tokens if task in TASKS else CONVERSATION_TOKENS.get(task)


def _unknown_length(recipe: Recipe, stage: str) -> StageCost:
    return StageCost(
        stage=stage,
        disk_bytes=_model_bytes(recipe),
        basis="its length follows from the chat data, once it is there",
    )
