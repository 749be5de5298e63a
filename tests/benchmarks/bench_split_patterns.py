"""Which split pattern is the better default: bits per byte after equal training on a CPU.

    uv run python tests/benchmarks/bench_split_patterns.py --data FOLDER [--steps 60] [--vocab-size 4096]

Two tokenizers of one size are trained on the same text, then two models of one shape for the same number of
steps over the same number of tokens, so both cost the same CPU time; the pattern with fewer tokens sees more
text in it. Both are measured on all of the same held-out documents.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import polars as pl

from nanochat.config import TokenizerConfig
from nanochat.data.text.token_shards import write_token_shard
from nanochat.recipes.shared import model_shape
from nanochat.recipes.small import toy
from nanochat.runtime import Runtime
from nanochat.tokenizer.split import PATTERNS, PatternName
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer
from nanochat.train.pretrain import pretrain
from tests.benchmarks.measuring import hardware, print_table
from tests.benchmarks.texts import documents, shard_files

TRAIN_DOCUMENTS = 4096
HELD_OUT_DOCUMENTS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print(hardware())
    *train_files, held_out_file = shard_files(arguments.data / "pretrain")
    train = list(islice(documents(train_files), TRAIN_DOCUMENTS))
    held_out = list(islice(documents([held_out_file]), HELD_OUT_DOCUMENTS))
    table = [
        [name, *_row(name, seed, train, held_out, arguments.steps, arguments.vocab_size)]
        for seed in range(arguments.seeds)
        for name in PATTERNS
    ]
    columns = ["pattern", "seed", "bytes per token", "text seen", "CPU", "held-out bits per byte"]
    title = f"{arguments.steps} steps, vocabulary {arguments.vocab_size}, 4 layers of 128, context 256"
    print_table(title, columns, table)


def _row(
    name: PatternName, seed: int, train: list[str], held_out: list[str], steps: int, vocab_size: int
) -> list[object]:
    config = toy().pretrain
    config = config.model_copy(
        update={
            "model": model_shape(4, vocab_size=vocab_size, sequence_len=256, width_per_layer=32, head_dim=32),
            "steps": steps,
            "eval_every": steps,
            "eval_tokens": 1 << 40,  # all of them, so that both are measured on the same text
            "sample_every": steps,
            "seed": seed,
        }
    )
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "text/shard").mkdir(parents=True)
        (folder / "tokenizer").mkdir()
        pl.DataFrame({"text": train}).write_parquet(folder / "text/shard/text.parquet")
        tokenizer_config = TokenizerConfig(vocab_size=vocab_size, pattern=name)
        train_tokenizer(tokenizer_config, {"shards": folder / "text"}, folder / "tokenizer", Runtime())
        tokenizer = Tokenizer.load(folder / "tokenizer")
        write_token_shard(folder / "train/shard", [[text.encode() for text in train]], tokenizer)
        stats = write_token_shard(folder / "val", [[text.encode() for text in held_out]], tokenizer)
        (folder / "model").mkdir()
        inputs = {
            "tokenizer": folder / "tokenizer",
            "train_tokens": folder / "train",
            "val_tokens": folder / "val",
        }
        start = time.process_time()
        metrics = pretrain(config, inputs, folder / "model", Runtime(device="cpu"))
        cpu = time.process_time() - start
    bytes_per_token = stats["bytes"] / (stats["tokens"] - stats["documents"])
    seen = steps * config.batch_tokens * bytes_per_token
    return [
        seed,
        f"{bytes_per_token:.3f}",
        f"{seen / 1e6:.1f} MB",
        f"{cpu:.0f} s",
        f"{metrics['val/bpb']:.4f}",
    ]


if __name__ == "__main__":
    main()
