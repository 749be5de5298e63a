"""How fast a model answers on a CPU, each kind of weights, beside upstream's engine and llama.cpp.

`uv run python -m tests.benchmarks.bench_chat`

A classic model with random weights, greedy, in turns: tokens per second of one answer and of eight together,
the time until the first token after a prompt of 512, and eight requests together against one after another
(prompts included). Where the wheel of llama.cpp is not installed, it is left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch

from nanochat.chat.engine import Engine
from nanochat.chat.writer import Pace
from nanochat.config import ModelConfig, Sampling
from nanochat.formats.gguf_file import write_gguf
from nanochat.formats.gguf_weights import WeightType
from nanochat.formats.published import Published
from nanochat.model.flops import parameter_counts
from nanochat.model.gpt import GPT
from nanochat.model.inference_weights import KINDS, use_weights, weight_bytes
from nanochat.recipes.shared import model_shape
from nanochat.tokenizer.tokenizer import Tokenizer
from tests.benchmarks.measuring import hardware, print_table
from tests.benchmarks.upstream_chat import UpstreamChat
from tests.support.llama_cpp import LlamaCpp

ROWS = 8
PROMPT, NEW, LONG_PROMPT = 64, 32, 512
BASELINE = "upstream's engine, float32"
LLAMA_TYPES: tuple[WeightType, ...] = ("q8_0", "q4_K")


class Writes(Protocol):
    """What answers prompts of the same length, token by token."""

    def start(self, prompts: Sequence[Sequence[int]], new: int) -> list[int]:
        """Read prompts; return the first token of each answer, of which there will be `new` more."""

    def step(self) -> list[int]:
        """Return the next token of each answer."""


class Ours:
    """This project's engine."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def start(self, prompts: Sequence[Sequence[int]], new: int) -> list[int]:
        tokens = len(prompts) * len(prompts[0])
        # An engine of its own, so that no prompt begins with what was read before.
        self.engine = Engine(
            self.model, self.tokenizer, Pace(rows=len(prompts), chunk=tokens, chunk_alone=tokens)
        )
        sampling = Sampling(temperature=0, max_new_tokens=new + 1)
        self.requests = [self.engine.submit(prompt, sampling) for prompt in prompts]
        return self.step()

    def step(self) -> list[int]:
        self.engine.step()
        return [request.tokens[-1] for request in self.requests]


class Llama:
    """llama.cpp."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = LlamaCpp(path, rows=ROWS, context=LONG_PROMPT + NEW + 1, threads=threads)

    def start(self, prompts: Sequence[Sequence[int]], new: int) -> list[int]:
        self.model.clear()
        self.position = len(prompts[0])
        self.tokens = self.model.feed(prompts, 0)
        return self.tokens

    def step(self) -> list[int]:
        self.tokens = self.model.feed([[token] for token in self.tokens], self.position)
        self.position += 1
        return self.tokens


@dataclass
class Subject:
    """One of those that are compared, and its figures in each round."""

    name: str
    writes: Writes
    step_bytes: int  # of the weights that are multiplied in a step
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, prompts: Callable[[int, int], list[list[int]]]) -> None:
        """Write the same amount as all the others."""
        one_read, one_written = self._timed(prompts(1, PROMPT), NEW)
        read, written = self._timed(prompts(ROWS, PROMPT), NEW)
        first, _ = self._timed(prompts(1, LONG_PROMPT), 0)
        self._add("one", NEW / one_written)
        self._add("eight", ROWS * NEW / written)
        self._add("first", first)
        self._add("together", ROWS * (one_read + one_written) / (read + written))

    def _timed(self, prompts: list[list[int]], new: int) -> tuple[float, float]:
        """Return the seconds until the first tokens, and from there to the last."""
        began = time.perf_counter()
        self.writes.start(prompts, new)
        read = time.perf_counter()
        for _ in range(new):
            self.writes.step()
        return read - began, time.perf_counter() - read

    def _add(self, name: str, value: float) -> None:
        self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def times(self, name: str, baseline: Subject, *, inverse: bool = False) -> float:
        """Return how many times as quick as the baseline in the same round it was, in the median."""
        pairs = zip(self.rounds[name], baseline.rounds[name], strict=True)
        return statistics.median((b / a if inverse else a / b) for a, b in pairs)


def random_model(config: ModelConfig) -> GPT:
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=weight.size(-1) ** -0.5, generator=generator)
    return model


def words(vocab_size: int) -> Tokenizer:
    """Return a tokenizer of single bytes and pairs of them."""
    pairs = (bytes(divmod(n, 256)) for n in range(65_536))
    tokens = [*(bytes([b]) for b in range(256)), *pairs][: vocab_size - 9]
    return Tokenizer.from_ranks({token: rank for rank, token in enumerate(tokens)})


def converted(model: GPT, kind: str) -> GPT:
    other = GPT(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    use_weights(other, kind)
    return other


def subjects(model: GPT, folder: Path, threads: int) -> Iterator[Subject]:
    config, state = model.config, model.state_dict()
    counts = parameter_counts(config)
    multiplied = counts["matrices"] + counts["lm_head"]
    yield Subject(BASELINE, UpstreamChat(config, state), 4 * multiplied)
    yield Subject("upstream's, dynamic int8", UpstreamChat(config, state, int8=True), multiplied)
    tokenizer = words(config.vocab_size)
    for kind in KINDS:
        ours = converted(model, kind)
        table = ours.transformer.wte.weight.nbytes
        yield Subject(f"ours, {kind}", Ours(ours, tokenizer), weight_bytes(ours) - table)
    if find_spec("xllamacpp"):
        for of in LLAMA_TYPES:
            path = folder / of
            write_gguf(path, Published(model=model, tokenizer=tokenizer), of)
            table = path.stat().st_size * counts["wte"] / (multiplied + counts["wte"])
            yield Subject(f"llama.cpp, {of.upper()}", Llama(path, threads), path.stat().st_size - int(table))


def read_bandwidth() -> float:
    """Return the bytes per second of a plain read of more than any cache holds."""
    numbers, seconds = torch.ones(2**28), []
    for _ in range(3):
        began = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - began)
    return numbers.nbytes / min(seconds)


def require_equal(found: Sequence[Subject], prompt: list[int]) -> None:
    """Raise SystemExit unless those with float32 weights write the same tokens."""
    written = {}
    for subject in found:
        if "float32" in subject.name:
            first = subject.writes.start([prompt], 8)
            written[subject.name] = [*first, *(token for _ in range(8) for token in subject.writes.step())]
    if len({tuple(tokens) for tokens in written.values()}) != 1:
        raise SystemExit(f"not the same tokens: {written}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = model_shape(args.depth, vocab_size=65_536, sequence_len=2048)
    generator = torch.Generator().manual_seed(1)

    def prompts(rows: int, length: int) -> list[list[int]]:
        return torch.randint(256, (rows, length), generator=generator).tolist()

    with tempfile.TemporaryDirectory() as folder:
        found = list(subjects(random_model(config), Path(folder), args.threads))
        require_equal(found, prompts(1, PROMPT)[0])
        bandwidths = []
        for _ in range(args.rounds):
            bandwidths.append(read_bandwidth())
            for subject in found:
                subject.measure(prompts)
    report(found, statistics.median(bandwidths))


def report(found: Sequence[Subject], bandwidth: float) -> None:
    print(hardware())
    print(f"{torch.get_num_threads()} threads, a plain read of {bandwidth / 1e9:.1f} GB/s")
    baseline, rows = found[0], []
    for subject in found:
        one, eight, first = (subject.median(name) for name in ("one", "eight", "first"))
        rows.append(
            (
                subject.name,
                f"{one:.1f} ({subject.times('one', baseline):.2f}x)",
                f"{subject.step_bytes * one / bandwidth:.0%}",
                f"{eight:.1f} ({subject.times('eight', baseline):.2f}x)",
                f"{first:.2f} s ({subject.times('first', baseline, inverse=True):.2f}x)",
                f"{subject.median('together'):.2f}x",
            )
        )
    columns = ("weights", "tokens/s", "of bandwidth", f"tokens/s, {ROWS} rows", f"first of {LONG_PROMPT}")
    print_table("answers", (*columns, f"{ROWS} together"), rows)


if __name__ == "__main__":
    main()
