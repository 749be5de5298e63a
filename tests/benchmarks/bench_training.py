"""What a training step costs on a CPU beside upstream's step in plain PyTorch (`plain_nanochat`).

Run with `uv run python tests/benchmarks/bench_training.py`; it is not collected as a test.

Both sides train the same model (d4-sized: 256 wide, 32,768 tokens of vocabulary) from the same weights on the
same 4 x 512 tokens a step, each in a process of its own, in turns of a few steps, so that a machine whose
speed drifts slows both. The text is drawn from a seeded grammar of pairs over a Zipf distribution: frequent
tokens and pairs can be learned in 200 steps. Prints tokens per second, the loss curve's end, peak memory (of
the process, and beyond what importing the libraries takes) and the first step, with compilation in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from tests.benchmarks.measuring import hardware, print_table

ROWS, LENGTH, VOCABULARY, DEPTH = 4, 512, 32_768, 4
SIDES = {
    "plain": "plain PyTorch, float32 (baseline)",
    "float32": "ours, float32",
    "any bytes": "ours, float32, MKL in its default mode",
    "bfloat16": "ours, bfloat16 products",
    "compiled": "ours, bfloat16 products, compiled",
}


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets (B, T) of a step."""
    rng = np.random.default_rng([7, step])
    text = np.minimum(rng.zipf(1.3, (ROWS, LENGTH + 1)), VOCABULARY) - 1
    follows = rng.random(text.shape) < 0.5
    for t in range(1, LENGTH + 1):  # half of all tokens follow from the one before them
        text[:, t] = np.where(follows[:, t], (31 * text[:, t - 1] + 17) % VOCABULARY, text[:, t])
    return text[:, :-1], text[:, 1:]


def plain() -> Callable[[int], float]:
    """Return the baseline: a function from the step to its loss."""
    import torch

    from nanochat.optim.schedules import rising_momentum
    from tests.benchmarks.plain_nanochat import PlainTrainer

    model = new_model()
    trainer = PlainTrainer(model.config, model.state_dict())
    del model

    def step(number: int) -> float:
        inputs, targets = (torch.from_numpy(part) for part in batch(number))
        return trainer.step(inputs, targets, rising_momentum(number))

    return step


def ours(precision: str, compiled: bool) -> Callable[[int], float]:
    """Return our own loop as a function from the step to its loss."""
    import torch

    from nanochat.config import OptimizerConfig
    from nanochat.optim.optimizer import ModelOptimizer
    from nanochat.optim.schedules import rising_momentum
    from nanochat.train.loop import TrainingPlan, training_steps
    from nanochat.train.state import TrainState

    model = new_model()
    plan = TrainingPlan(
        steps=2**30, batch_rows=ROWS, longest=LENGTH, batch=lambda step, _: batch(step),
        lr_multiplier=lambda _: 1.0, momentum=rising_momentum,
    )  # fmt: skip
    model.precision = getattr(torch, precision)
    state = TrainState(model, ModelOptimizer(model, OptimizerConfig()))
    state.compiled = torch.compile(model) if compiled else None
    steps = training_steps(state, plan)
    return lambda _: next(steps).loss


def new_model():
    """Return the model with weights drawn from a seed."""
    import torch

    from nanochat.model.gpt import GPT
    from nanochat.recipes.shared import model_shape

    model = GPT(model_shape(DEPTH, vocab_size=VOCABULARY, sequence_len=LENGTH))
    model.init_weights(torch.Generator().manual_seed(1))
    return model


def peak_mib() -> float:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(side: str, threads: int) -> None:
    """Take steps for as long as the parent asks for them; a line of JSON answers each request."""
    import torch

    torch.set_num_threads(threads)
    if side in ("plain", "any bytes"):
        torch.ones(2, 2) @ torch.ones(
            2, 2
        )  # after a first use MKL takes no other mode (nanochat.model.reproducible)
    imported, number = peak_mib(), 0
    make = {
        "plain": plain,
        "float32": lambda: ours("float32", False),
        "any bytes": lambda: ours("float32", False),
        "bfloat16": lambda: ours("bfloat16", False),
        "compiled": lambda: ours("bfloat16", True),
    }
    step = make[side]()
    for line in sys.stdin:
        losses, seconds = [], []
        for _ in range(int(line)):
            begin = time.perf_counter()
            losses.append(step(number))
            seconds.append(time.perf_counter() - begin)
            number += 1
        said = {"losses": losses, "seconds": seconds, "peak_mib": peak_mib(), "imported_mib": imported}
        print(json.dumps(said), flush=True)


@contextmanager
def started(side: str, threads: int) -> Iterator[Callable[[int], dict]]:
    """Start a side; yield a function that asks it for a number of steps."""
    command = [sys.executable, __file__, "--side", side, "--threads", str(threads)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ask(steps: int) -> dict:
            stdin.write(f"{steps}\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield ask
        stdin.close()


def compare(sides: Sequence[str], steps: int, turn: int, threads: int) -> dict[str, dict]:
    """Let all sides take turns; return what each reported."""
    said = {side: {"losses": [], "seconds": []} for side in sides}
    with ExitStack() as stack:
        asks = {side: stack.enter_context(started(side, threads)) for side in sides}
        for begin in range(0, steps, turn):
            for side, ask in asks.items():
                answer = ask(min(turn, steps - begin))
                said[side]["losses"] += answer["losses"]
                said[side]["seconds"] += answer["seconds"]
                said[side] |= {key: answer[key] for key in ("peak_mib", "imported_mib")}
    return said


def beyond(said: dict) -> float:
    """Return the memory that training took beyond that of the imported libraries."""
    return said["peak_mib"] - said["imported_mib"]


def row(side: str, said: dict, base: dict, turn: int) -> list[str]:
    """Return a table row; the first turn, with compilation in it, is not part of the speed."""
    speeds = [ROWS * LENGTH / s for s in said["seconds"][turn:]]
    ratios = [b / s for b, s in zip(base["seconds"][turn:], said["seconds"][turn:], strict=True)]
    low, high = np.quantile(ratios, [0.1, 0.9])
    end = statistics.mean(said["losses"][-10:])
    base_end = statistics.mean(base["losses"][-10:])
    return [
        SIDES[side],
        f"{statistics.median(speeds):,.0f}",
        f"{statistics.median(ratios):.2f}x ({low:.2f} – {high:.2f})",
        f"{end:.4f} ({(end / base_end - 1) * 100:+.2f} %)",
        f"{said['peak_mib']:,.0f} MiB ({said['peak_mib'] / base['peak_mib']:.2f}x)",
        f"{beyond(said):,.0f} MiB ({beyond(said) / beyond(base):.2f}x)",
        f"{said['seconds'][0]:.1f} s",
    ]


def main() -> None:
    """Run all sides, or be one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--turn", type=int, default=5, help="steps that one side takes at a time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SIDES, action="append", help="compare only this side; repeatable")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        child(options.side, options.threads)
        return
    print(hardware(), f"{options.threads} threads")
    sides = ["plain", *(options.only or [name for name in SIDES if name != "plain"])]
    said = compare(sides, options.steps, options.turn, options.threads)
    rows = [row(side, said[side], said["plain"], options.turn) for side in sides]
    speed, memory = ("tokens/s", "speed (10 % – 90 %)"), ("peak memory", "beyond libraries")
    columns = ("step", *speed, "loss of the last 10 steps", *memory, "first step")
    print_table(f"{options.steps} steps of {ROWS} x {LENGTH} tokens, medians", columns, rows)


if __name__ == "__main__":
    main()
