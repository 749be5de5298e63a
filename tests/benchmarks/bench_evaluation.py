"""What an evaluation costs beside upstream's loops, on one CPU thread: the same model, items and verdicts.

    uv run python -m tests.benchmarks.bench_evaluation --data FOLDER          # everything
    … --parts core --items 8 --vocab 8192                                     # with a smaller head

FOLDER has `pretrain/*.parquet` (a tokenizer is trained on two of them), `tasks/` and `core/`. The model's
weights are drawn, which costs what trained ones cost. Its replies end at one of 1 % of all tokens, so that
they are of many lengths as trained ones are; they are compared as they are written, before any is judged.
Upstream's loops (`upstream_loops`) run on our model, float32 and MKL. Times are CPU seconds of this process,
which other work on the machine stretches less than wall time; both sides render and encode their prompts. The
sides take turns. The last column counts the items whose verdict is another one when the same batches are
computed in bfloat16.

Goals: CORE 5x, choices 2.5x, written answers 5x, no verdict that differs.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import torch

from nanochat.chat.engine import Engine
from nanochat.config import ModelConfig
from nanochat.data.chat.tasks import load_scored_task
from nanochat.evals import choice
from nanochat.evals.core import score
from nanochat.evals.core.bundle import load_core
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe_training import train_ranks
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.word_counts import count_words
from tests.benchmarks import upstream_loops
from tests.benchmarks.measuring import hardware, print_table

GOALS = {"core": 5.0, "choices": 2.5, "written": 5.0}
CHOICES, WRITTEN = ("mmlu", "arc_easy", "arc_challenge"), ("gsm8k", "humaneval")
_SPECIALS = 9
Verdicts = Mapping[int, str]


@dataclass
class Side:
    """CPU seconds of each turn, and what is said of each item."""

    seconds: list[float] = field(default_factory=list)
    verdicts: dict[int, str] = field(default_factory=dict)

    def take(self, work: Callable[[], Verdicts]) -> None:
        begin = time.process_time()
        self.verdicts = dict(work())
        self.seconds.append(time.process_time() - begin)

    def differ(self, other: Side) -> int:
        return sum(other.verdicts[item] != verdict for item, verdict in self.verdicts.items())


@dataclass(frozen=True)
class Work:
    """One task as each side does it."""

    name: str
    theirs: Callable[[], Verdicts]
    ours: Callable[[], Verdicts]
    rounded: Callable[[], Verdicts]  # ours in bfloat16


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=32_768)
    parser.add_argument(
        "--items", type=int, default=8, help="items of each CORE task; 8 times as many choices"
    )
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = _tokenizer(options.data, options.vocab)
    model = _model(tokenizer, options.depth)
    print(hardware(), f"depth {options.depth}, {model.config.n_embd} wide, vocabulary {tokenizer.vocab_size}")
    for part in options.parts:
        _report(part, _works(part, options, model, tokenizer), options.turns)


def _works(
    part: str, options: argparse.Namespace, model: GPT, tokenizer: Tokenizer
) -> Sequence[tuple[str, list[Work]]]:
    """Return the groups of a part, each with its tasks."""
    rounded = copy.deepcopy(model)
    rounded.compute_in(torch.bfloat16)
    if part == "core":
        works = _core_works(options, (model, rounded), tokenizer)
        kinds = list(works)
        return [*((kind, works[kind]) for kind in kinds), ("CORE", list(chain(*works.values())))]
    make = _choice_work if part == "choices" else _written_work
    tasks = [
        make(options, (model, rounded), tokenizer, name)
        for name in (CHOICES if part == "choices" else WRITTEN)
    ]
    return [*((work.name, [work]) for work in tasks), *([(part, tasks)] if part == "choices" else [])]


def _core_works(
    options: argparse.Namespace, models: tuple[GPT, GPT], tokenizer: Tokenizer
) -> dict[str, list[Work]]:
    works: dict[str, list[Work]] = {}
    for task in load_core(options.data, None):
        items = range(min(options.items, len(task.items)))

        def ours(model: GPT, task=task, items=items) -> Verdicts:
            found = chain.from_iterable(score.answered(model, tokenizer, task, items))
            by_number = {result.item: result.predictions[0] for result in found}
            return {i: by_number[task.number(i)] for i in items}

        theirs = lambda task=task, items=items: upstream_loops.core(models[0], tokenizer, task, items)  # noqa: E731
        work = Work(task.label, theirs, *(lambda m=m, f=ours: f(m) for m in models))
        works.setdefault(task.kind.replace("_", " "), []).append(work)
    return works


def _choice_work(
    options: argparse.Namespace, models: tuple[GPT, GPT], tokenizer: Tokenizer, name: str
) -> Work:
    task = load_scored_task(options.data, name)
    items = random.Random(1).sample(range(len(task)), 8 * options.items)

    def ours(model: GPT) -> Verdicts:
        found = chain.from_iterable(choice.answered(model, tokenizer, task, items))
        return {result.item: result.predictions[0] for result in found}

    theirs = lambda: upstream_loops.choices(models[0], tokenizer, task, items)  # noqa: E731
    return Work(name, theirs, *(lambda m=m: ours(m) for m in models))


def _written_work(
    options: argparse.Namespace, models: tuple[GPT, GPT], tokenizer: Tokenizer, name: str
) -> Work:
    task = load_scored_task(options.data, name)
    items = random.Random(1).sample(range(len(task)), min(len(task), 8 * options.items))
    draw = np.random.default_rng(5).choice(tokenizer.vocab_size, tokenizer.vocab_size // 100, replace=False)
    ends = {int(token) for token in draw} | {tokenizer.special("bos"), tokenizer.special("assistant_end")}

    def ours(model: GPT) -> Verdicts:
        engine = Engine(model, tokenizer)
        engine._stop = ends
        prompts = [render_for_completion(tokenizer, task.conversation(item)) for item in items]
        replies = engine.generate_each(prompts, range(len(items)), max_new_tokens=options.new_tokens)
        return {items[number]: tokenizer.decode(tokens) for number, tokens in replies}

    theirs = lambda: upstream_loops.written(  # noqa: E731
        models[0], tokenizer, task, items, options.new_tokens, ends
    )
    return Work(name, theirs, *(lambda m=m: ours(m) for m in models))


def _report(part: str, groups: Sequence[tuple[str, list[Work]]], turns: int) -> None:
    sides: dict[str, tuple[Side, Side, Side]] = {}
    for work in {work.name: work for _, works in groups for work in works}.values():
        theirs, ours, rounded = sides[work.name] = Side(), Side(), Side()
        for _ in range(turns):
            theirs.take(work.theirs)
            ours.take(work.ours)
        rounded.take(work.rounded)
    rows = []
    for name, works in groups:
        theirs, ours, rounded = ([sides[work.name][side] for work in works] for side in range(3))
        each = [
            (sum(side.seconds[turn] for side in theirs), sum(side.seconds[turn] for side in ours))
            for turn in range(turns)
        ]
        ratios = [a / b for a, b in each]
        rows.append(
            [
                name,
                sum(len(side.verdicts) for side in ours),
                f"{statistics.median(a for a, _ in each):.2f} s",
                f"{statistics.median(b for _, b in each):.2f} s",
                f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} – {max(ratios):.2f})",
                sum(a.differ(b) for a, b in zip(theirs, ours, strict=True)),
                sum(a.differ(b) for a, b in zip(rounded, ours, strict=True)),
            ]
        )
    columns = ("", "items", "upstream's loop", "ours", "speed", "verdicts that differ", "in bfloat16")
    print_table(f"{part}: CPU time, {turns} turns (goal {GOALS[part]}x)", columns, rows)


def _tokenizer(data: Path, vocab: int) -> Tokenizer:
    files = sorted((data / "pretrain").glob("*.parquet"))[:2]
    counted = count_words(files, doc_cap=10_000, max_chars=40_000_000)
    words = counted.words.filter(pl.col("count") >= 2).iter_rows()
    return Tokenizer.from_ranks(train_ranks(words, vocab - _SPECIALS))


def _model(tokenizer: Tokenizer, depth: int) -> GPT:
    """Return a model whose weights are all drawn, its shape that of the depth."""
    width = 64 * depth
    heads = max(1, width // 128)
    shape = {"n_layer": depth, "n_head": heads, "n_kv_head": heads, "n_embd": width}
    model = GPT(ModelConfig(sequence_len=2048, vocab_size=tokenizer.vocab_size, **shape))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=weight.size(-1) ** -0.5, generator=generator))
    return model.eval()


if __name__ == "__main__":
    main()
