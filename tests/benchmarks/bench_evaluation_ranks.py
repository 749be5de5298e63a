"""How much faster two ranks evaluate than one, each on one thread, and whether they give the same bytes.

    uv run python tests/benchmarks/bench_evaluation_ranks.py --data FOLDER

A model of random weights is asked choices, word problems and bits per byte. On a busy machine the wall clock
says little: the ratio of processor times, of one rank against the busier of two, is what two idle cores would
give.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from nanochat.config import EvaluateConfig, ModelConfig, TokenizeConfig
from nanochat.data.text.tokenize import tokenize_shard
from nanochat.evals.evaluate import evaluate_base
from nanochat.model.checkpoint import save_model
from nanochat.model.gpt import GPT
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from tests.benchmarks.measuring import hardware, print_table
from tests.benchmarks.texts import shard_files
from tests.support.ranks import on_ranks

CONFIG = EvaluateConfig(
    chat_tasks=("arc_easy", "mmlu", "gsm8k"),
    max_problems=256,
    core=False,
    max_new_tokens=32,
    bpb_tokens=64 * 1024,
)
SHAPE = ModelConfig(sequence_len=1024, vocab_size=265, n_layer=4, n_head=4, n_kv_head=4, n_embd=128)
TRIES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        inputs = made(data, Path(name))
        best = {size: timed(size, inputs, Path(name)) for size in (1, 2)}
        if len(set(results(Path(name)))) != 1:
            raise SystemExit("one rank and two do not give the same bytes")
    (wall, cpu), (wall_2, cpu_2) = best[1], best[2]
    print_table(
        "Evaluation on one rank and on two, one thread each",
        ["", "one rank", "two ranks", "ratio"],
        [
            ["wall clock, s", f"{wall:.1f}", f"{wall_2:.1f}", f"{wall / wall_2:.2f}x"],
            ["processor, the busier rank, s", f"{cpu:.1f}", f"{cpu_2:.1f}", f"{cpu / cpu_2:.2f}x"],
        ],
    )


def made(data: Path, folder: Path) -> dict[str, Path]:
    """Make a tokenizer, a model and validation tokens."""
    inputs = {name: folder / name for name in ("tokenizer", "model", "val_tokens", "shard")}
    for path in inputs.values():
        path.mkdir()
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    tokenizer.save(inputs["tokenizer"])
    model = GPT(SHAPE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.05, generator=generator))
    save_model(inputs["model"], model)
    (inputs["shard"] / "text.parquet").symlink_to(shard_files(data / "pretrain")[-1].resolve())
    tokenize_shard(TokenizeConfig(), inputs, inputs["val_tokens"], Runtime())
    return {**inputs, "tasks": data}


def timed(size: int, inputs: dict[str, Path], folder: Path) -> tuple[float, float]:
    """Return the least wall and processor time of several tries, of the rank that took longest."""
    tries = []
    for number in range(TRIES):
        out = folder / f"out-{size}-{number}"
        out.mkdir()
        by_rank = on_ranks(size, as_rank, inputs, out)
        tries.append(tuple(max(times) for times in zip(*by_rank, strict=True)))
    return min(wall for wall, _ in tries), min(cpu for _, cpu in tries)


def as_rank(inputs: dict[str, Path], out: Path) -> tuple[float, float]:
    """Evaluate as one of the ranks; return how long it took by the wall clock and on the processor."""
    RankGroup.current().gather(0.0)
    wall, cpu = time.perf_counter(), time.process_time()
    evaluate_base(CONFIG, inputs, out, Runtime(threads=1, scratch=out))
    return time.perf_counter() - wall, time.process_time() - cpu


def results(folder: Path) -> list[tuple[tuple[str, bytes], ...]]:
    """Return the files of each try with their content."""
    return [
        tuple((str(p.relative_to(out)), p.read_bytes()) for p in sorted(out.rglob("*")) if p.is_file())
        for out in folder.glob("out-*")
    ]


if __name__ == "__main__":
    main()
