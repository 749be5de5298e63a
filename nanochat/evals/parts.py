"""The parts of an evaluation as work that can be shared: chat tasks, CORE tasks, bits per byte, samples.

Here is decided which items are asked, how much work each is, and which scorer answers them; cutting and
sharing are the business of `portions` and `shared_work`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.chat import samples
from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.tasks import ChatTask
from nanochat.data.text.batches import val_batch_count, val_batches
from nanochat.data.text.token_shards import TokenShard, vocabulary_digest
from nanochat.evals import choice, generative
from nanochat.evals.bpb import as_bits_per_byte, nats_and_bytes
from nanochat.evals.core import score as core
from nanochat.evals.core.bundle import CoreTask
from nanochat.evals.item_files import as_row
from nanochat.evals.item_results import ItemResult
from nanochat.evals.jail.levels import strongest
from nanochat.evals.portions import GENERATED, EvaluationPart, Row
from nanochat.evals.problem_sets import asked
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

_WRITTEN_TOGETHER = 64  # replies: twice those of a batch, so that most wait for no slowest one
_VAL_ROWS = 16
_SAMPLE_TOKENS = 64
_CHARACTERS = 4  # of a token, about
VAL_BPB, SAMPLES = "val_bpb", "samples"


@dataclass(frozen=True)
class Model:
    """What is evaluated."""

    gpt: GPT
    tokenizer: Tokenizer
    engine: Engine
    workers: int = 1  # programs that are judged at once


def chat_part(model: Model, config: EvaluateConfig, task: ChatTask) -> EvaluationPart:
    """Return the problems of a chat task."""
    if task.kind == "code":
        strongest(allow_unsafe_code=config.allow_unsafe_code)  # raises before anything is written
    written = 0 if task.kind == "choice" else config.num_samples * config.max_new_tokens * GENERATED

    def make(items: Sequence[int]) -> Iterator[Mapping[int, Row]]:
        if task.kind == "choice":
            return _rows(choice.answered(model.gpt, model.tokenizer, task, items))
        return _rows(generative.answered(model.engine, task, items, config, workers=model.workers))

    return EvaluationPart(
        name=task.name,
        work={item: _asked(task, item) + written for item in asked(task, config.max_problems)},
        make=make,
        baseline=task.baseline,
        least_items=_WRITTEN_TOGETHER // config.num_samples or 1 if written else 1,
    )


def core_part(model: Model, task: CoreTask) -> EvaluationPart:
    """Return the items of a CORE task."""
    index = {task.number(i): i for i in range(len(task.items))}

    def make(items: Sequence[int]) -> Iterator[Mapping[int, Row]]:
        return _rows(core.answered(model.gpt, model.tokenizer, task, [index[item] for item in items]))

    work = {item: _read_once(task.prompts(i)) for item, i in index.items()}
    return EvaluationPart(name=f"core_{task.label}", work=work, make=make, baseline=task.baseline)


def bpb_part(model: Model, config: EvaluateConfig, folder: Path) -> EvaluationPart:
    """Return the batches of the validation text; a row is its nats and bytes."""
    shard = TokenShard.open(folder, vocabulary_digest(model.tokenizer))
    length = model.gpt.config.sequence_len
    batches = (shard, _VAL_ROWS, length, config.bpb_tokens)

    def make(items: Sequence[int]) -> Iterator[Mapping[int, Row]]:
        token_bytes = model.tokenizer.token_bytes()
        for number in items:
            batch = val_batches(*batches, slice(number, number + 1))
            yield {number: nats_and_bytes(model.gpt, batch, token_bytes)}

    work = dict.fromkeys(range(val_batch_count(*batches)), float(_CHARACTERS * _VAL_ROWS * length))
    return EvaluationPart(name=VAL_BPB, work=work, make=make)


def bits_per_byte(rows: Mapping[int, Row]) -> float:
    """Return bits per byte from the rows of all batches, added in their order."""
    nats, size = 0.0, 0
    for _, (its_nats, its_size) in sorted(rows.items()):
        nats, size = nats + its_nats, size + its_size
    return as_bits_per_byte(nats, size)


def samples_part(model: Model, config: EvaluateConfig, kind: str) -> EvaluationPart:
    """Return the prompts that are continued for people to read; a row is a prompt and its continuation."""
    tokens = min(_SAMPLE_TOKENS, config.max_new_tokens)
    write = samples.continuation if kind == "base" else samples.reply

    def make(items: Sequence[int]) -> Iterator[Mapping[int, Row]]:
        for number in items:
            prompt = config.prompts[number]
            yield {number: {"prompt": prompt, "text": write(model.engine, prompt, tokens)}}

    work = dict.fromkeys(range(len(config.prompts)), float(tokens * GENERATED))
    return EvaluationPart(name=SAMPLES, work=work, make=make)


def _rows(answered: Iterator[list[ItemResult]]) -> Iterator[Mapping[int, Row]]:
    return ({result.item: as_row(result) for result in batch} for batch in answered)


def _asked(task: ChatTask, item: int) -> float:
    """Return about how many characters a model reads for a problem of a chat task."""
    *asked, _ = task.conversation(item)
    return float(sum(len(message["content"]) for message in asked))


def _read_once(prompts: Sequence[str]) -> float:
    """Return how many characters there are in prompts whose common beginnings are read once."""
    first, *others = prompts
    return float(len(first) + sum(len(other) - _shared(first, other) for other in others))


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with, comparing long pieces."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[:middle] == other[:middle]:
            least = middle
        else:
            most = middle - 1
    return least
