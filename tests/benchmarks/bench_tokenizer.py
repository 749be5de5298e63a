"""Training and speed of the tokenizer against rustbpe, tiktoken and SentencePiece, on the same text.

    uv run python tests/benchmarks/bench_tokenizer.py --data FOLDER
    … --train-mb 1000 --more FOLDER …    # more text, from the files below these folders
    … --gpt2 gpt2.json                   # of the npm package tiktoken, for the rows of GPT-2

FOLDER has `pretrain/*.parquet` (the last one is held out) and may have `tasks/` and `core/`.
Each training runs in a process of its own with two threads; memory is that process's peak. CPU seconds are
what to compare on a machine with other work; rates are per CPU second of one thread.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import multiprocessing
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tiktoken

from tests.benchmarks.measuring import hardware, print_table
from tests.benchmarks.texts import documents, machine_text, rows, shard_files, write_text

VOCAB_SIZE = 65_536
SPECIALS = 9
TRAINERS = ("nanochat", "rustbpe")
PARTS = ("training", "encoding", "compression")
PUBLISHED_CHARS = 2e9
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_train(arguments.child, Path(arguments.text), Path(arguments.out))))
        return
    print(hardware())
    *train_files, held_out = shard_files(arguments.data / "pretrain")
    with tempfile.TemporaryDirectory() as work:
        text, size = Path(work) / "text", 0
        more = machine_text(arguments.more)
        size = write_text(text, chain(documents(train_files), more), int(arguments.train_mb * 1e6))
        print(f"training text: {size / 1e6:.0f} MB in {len(shard_files(text))} files")
        if "training" in arguments.parts:
            _report_training(text, Path(work), size, list(documents([held_out])), arguments.repeats)
        else:
            _child("nanochat", text, Path(work))
        ranks = pickle.loads((Path(work) / "nanochat.ranks").read_bytes())
    if "encoding" in arguments.parts:
        batches = _batches(list(documents([held_out])))
        _report_encoding(ranks, batches, arguments.repeats)
        _report_scaling(ranks, batches)
        _report_latency(ranks)
    if "compression" in arguments.parts:
        _report_kinds(ranks, arguments.data, arguments.gpt2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train-mb", type=float, default=50)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gpt2", type=Path)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    for name in ("child", "text", "out"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- training --------------------------------------------------------------------------------------------


def _train(trainer: str, text: Path, out: Path) -> dict[str, float]:
    """Train in this process; leave the ranks in `out`."""
    from nanochat.tokenizer.split import PATTERN

    files = shard_files(text)
    start, start_cpu = time.perf_counter(), time.process_time()
    words = 0
    if trainer == "rustbpe":
        import rustbpe

        theirs = rustbpe.Tokenizer()
        theirs.train_from_iterator(documents(files), VOCAB_SIZE - SPECIALS, pattern=PATTERN)
        ranks = {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}
    else:
        import polars as pl

        from nanochat.tokenizer.bpe_training import train_ranks
        from nanochat.tokenizer.word_counts import count_words

        counted = count_words(files, doc_cap=10_000, max_chars=10**12)
        words = len(counted.words)
        ranks = train_ranks(counted.words.filter(pl.col("count") >= 2).iter_rows(), VOCAB_SIZE - SPECIALS)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    (out / f"{trainer}.ranks").write_bytes(pickle.dumps(ranks))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"wall": seconds, "cpu": cpu, "memory": peak, "words": words, "tokens": len(ranks)}


def _child(trainer: str, text: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", trainer, "--text", str(text), "--out", str(out)]
    threads = {"POLARS_MAX_THREADS": "2", "RAYON_NUM_THREADS": "2"}
    done = subprocess.run(command, env={**os.environ, **threads}, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _report_training(text: Path, work: Path, size: int, held_out: list[str], repeats: int) -> None:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in TRAINERS}
    for _ in range(repeats):
        for name in TRAINERS:
            runs[name].append(_child(name, text, work))
    held_bytes = sum(len(text.encode()) for text in held_out)
    table, medians = [], {}
    for name in TRAINERS:
        ranks = pickle.loads((work / f"{name}.ranks").read_bytes())
        encoding = _encoding(ranks)
        tokens = sum(len(encoding.encode_to_numpy(t, disallowed_special=())) for t in held_out)
        of = medians[name] = {
            key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]
        } | {"bytes_per_token": held_bytes / tokens}
        spread = " – ".join(f"{pick(run['cpu'] for run in runs[name]):.1f}" for pick in (min, max))
        table.append(
            [
                name,
                f"{of['wall']:.1f} s",
                f"{of['cpu']:.1f} s ({spread})",
                f"{of['memory'] / 1e6:.0f} MB",
                f"{of['bytes_per_token']:.4f}",
            ]
        )
    pairs = list(zip(runs["rustbpe"], runs["nanochat"], strict=True))
    table.append(
        [
            "rustbpe / nanochat",
            *(
                f"{statistics.median(theirs[key] / ours[key] for theirs, ours in pairs):.2f}"
                for key in ("wall", "cpu", "memory")
            ),
            f"{medians['rustbpe']['bytes_per_token'] / medians['nanochat']['bytes_per_token']:.5f}",
        ]
    )
    columns = ["trainer", "wall", "CPU", "peak memory", "bytes per held-out token"]
    print_table(f"training, {size / 1e6:.0f} MB, vocabulary {VOCAB_SIZE}, {repeats} pairs", columns, table)
    ours = medians["nanochat"]
    times = PUBLISHED_CHARS / size
    print(
        f"\n{ours['words']:,.0f} distinct words here. 2 GB of characters, all in proportion (an upper bound:"
        f" distinct words grow more slowly): {ours['wall'] * times:.0f} s, {ours['cpu'] * times:.0f} CPU s,"
        f" {ours['memory'] * times / 1e9:.1f} GB"
    )


# --- encoding --------------------------------------------------------------------------------------------


def _encoding(ranks: dict[bytes, int], pattern: str | None = None) -> tiktoken.Encoding:
    from nanochat.tokenizer.split import PATTERN

    return tiktoken.Encoding(
        "bench", pat_str=pattern or PATTERN, mergeable_ranks=ranks, special_tokens={"<|end|>": len(ranks)}
    )


def _batches(texts: list[str], documents_each: int = 1024) -> list[list[str]]:
    return [texts[i : i + documents_each] for i in range(0, len(texts), documents_each)]


def _native(ranks: dict[bytes, int]) -> sentencepiece.SentencePieceProcessor:
    """Return SentencePiece with the same pieces; it gets mapped text and does not cut by the pattern."""
    from nanochat.tokenizer.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        Tokenizer.from_ranks(ranks).save(Path(folder))
        return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")


def _report_encoding(ranks: dict[bytes, int], batches: list[list[str]], repeats: int) -> None:
    from nanochat.tokenizer.bpe_training import map_bytes
    from nanochat.tokenizer.tokenizer import Tokenizer

    encoding, native = _encoding(ranks), _native(ranks)
    ours = {"cold": Tokenizer.from_ranks(ranks), "warm": Tokenizer.from_ranks(ranks)}
    for batch in batches:
        ours["warm"].encode_batch(batch)
        for a, b in zip(ours["warm"].encode_batch(batch), encoding.encode_ordinary_batch(batch), strict=True):
            assert a.tolist() == b, "the ids differ from tiktoken's"
    engines: dict[str, Callable[[list[str]], Any]] = {
        "tiktoken encode_ordinary_batch": lambda batch: encoding.encode_ordinary_batch(batch, num_threads=1),
        "tiktoken encode_to_numpy": lambda batch: [
            encoding.encode_to_numpy(text, disallowed_special=()) for text in batch
        ],
        "nanochat, lexicon empty at first": lambda batch: ours["cold"].encode_batch(batch),
        "nanochat, lexicon filled": lambda batch: ours["warm"].encode_batch(batch),
        "SentencePiece, native": lambda batch: native.encode(
            [map_bytes(text.encode()) for text in batch], num_threads=1
        ),
    }
    size = sum(len(text.encode()) for batch in batches for text in batch)
    cpu: dict[str, list[float]] = {name: [0.0] * repeats for name in engines}
    for n in range(repeats):
        ours["cold"] = Tokenizer.from_ranks(ranks)
        for name, encode in engines.items():
            start = time.process_time()
            for batch in batches:
                encode(batch)
            cpu[name][n] = time.process_time() - start
    base = next(iter(cpu.values()))
    table = [
        [
            name,
            f"{size / 1e6 / statistics.median(times):.1f} MB/s",
            f"{size / 1e6 / max(times):.1f} – {size / 1e6 / min(times):.1f}",
            f"{statistics.median(b / t for b, t in zip(base, times, strict=True)):.2f}",
        ]
        for name, times in cpu.items()
    ]
    print_table(
        f"encoding {size / 1e6:.0f} MB that training did not see, one thread, {repeats} times; the same ids",
        ["engine", "per CPU second", "from – to", "times the first"],
        table,
    )


def _report_scaling(ranks: dict[bytes, int], batches: list[list[str]]) -> None:
    size = sum(len(text.encode()) for batch in batches for text in batch)
    context = multiprocessing.get_context("spawn")
    table, alone = [], (0.0, 0.0)
    cores = len(os.sched_getaffinity(0))
    for n in sorted({1, cores}):
        with context.Pool(n, _open, (ranks, batches)) as pool:
            pool.map(_work, range(n), chunksize=1)  # all are up, lexicons filled
            start = time.perf_counter()
            cpu = sum(pool.map(_work, range(n), chunksize=1))
            rates = (n * size / 1e6 / (time.perf_counter() - start), n * size / 1e6 / cpu)
        alone = alone if any(alone) else rates
        relative = (f"{rate / base:.2f}" for rate, base in zip(rates, alone, strict=True))
        table.append([n, *(f"{rate:.1f} MB/s" for rate in rates), *relative])
    columns = ["processes", "all together", "per CPU second", "times one", "per CPU second, times one"]
    print_table(f"processes side by side, {cores} cores, lexicons filled", columns, table)


def _open(ranks: dict[bytes, int], batches: list[list[str]]) -> None:
    from nanochat.tokenizer.tokenizer import Tokenizer

    global _tokenizer, _texts
    _tokenizer, _texts = Tokenizer.from_ranks(ranks), batches


def _work(_: int) -> float:
    start = time.process_time()
    for batch in _texts:
        _tokenizer.encode_batch(batch)
    return time.process_time() - start


def _report_latency(ranks: dict[bytes, int]) -> None:
    from nanochat.tokenizer.chat_format import render_for_completion
    from nanochat.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_ranks(ranks)
    table = []
    for characters in (60, 600, 6000):
        turn = ("Why is the sky blue, and since when do we know? " * 200)[:characters]
        times = []
        for _ in range(500):
            start = time.perf_counter()
            render_for_completion(tokenizer, [{"role": "user", "content": turn}])
            times.append(1e6 * (time.perf_counter() - start))
        low, high = np.percentile(times, [50, 99])
        table.append([characters, f"{low:.0f} us", f"{high:.0f} us"])
    print_table("a chat turn, rendered and encoded", ["characters", "median", "99 of 100 within"], table)


# --- compression -----------------------------------------------------------------------------------------


def _kinds(data: Path) -> dict[str, list[str]]:
    core = "core/eval_data"
    kinds = {
        "pretraining, held out": lambda: list(documents(shard_files(data / "pretrain")[-1:])),
        "prose (novels)": lambda: rows(
            data, f"{core}/language_understanding/lambada_openai.jsonl", "context", "continuation"
        ),
        "prose (encyclopedia)": lambda: rows(data, f"{core}/reading_comprehension/squad.jsonl", "context"),
        "code": lambda: rows(data, "tasks/humaneval/HumanEval.jsonl", "prompt", "canonical_solution", "test"),
        "mathematics": lambda: rows(data, "tasks/gsm8k/test.jsonl", "question", "answer"),
        "science": lambda: [
            *rows(data, "tasks/arc/ARC-Challenge/test.jsonl", "question"),
            *rows(data, "tasks/arc/ARC-Easy/test.jsonl", "question"),
        ],
    }
    found = {}
    for name, read in kinds.items():
        try:
            found[name] = read()
        except FileNotFoundError:
            print(f"no text for: {name}")
    return found


def _references(gpt2: Path | None) -> dict[str, tiktoken.Encoding]:
    references = {}
    if gpt2:
        ranks = _npm_ranks(json.loads(gpt2.read_text())["bpe_ranks"])
        references["GPT-2"] = _encoding(ranks, GPT2_PATTERN)
    found = importlib.util.find_spec("tiktoken_ext")
    for folder in (found.submodule_search_locations or []) if found else []:
        file = Path(folder) / "data/cl100k_base.tiktoken"
        if file.exists():
            lines = (line.split() for line in file.read_bytes().splitlines() if line)
            ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
            from nanochat.tokenizer.split import PATTERN

            references["GPT-4"] = _encoding(ranks, PATTERN.replace("{1,2}", "{1,3}"))
    return references


def _npm_ranks(text: str) -> dict[bytes, int]:
    ranks = {}
    for line in text.splitlines():
        _, offset, *tokens = line.split(" ")
        ranks.update({base64.b64decode(token): int(offset) + i for i, token in enumerate(tokens)})
    return ranks


def _report_kinds(ranks: dict[bytes, int], data: Path, gpt2: Path | None) -> None:
    encodings = {**_references(gpt2), "ours": _encoding(ranks)}
    table = []
    for kind, texts in _kinds(data).items():
        size = sum(len(text.encode()) for text in texts)
        ratios = {name: size / _count(encoding, texts) for name, encoding in encodings.items()}
        against = [f"{100 * (ratios['ours'] / r - 1):+.1f} %" for n, r in ratios.items() if n != "ours"]
        table.append([kind, f"{size:,}", *(f"{ratio:.3f}" for ratio in ratios.values()), *against])
    names = [f"{name} ({encoding.n_vocab - 1:,})" for name, encoding in encodings.items()]
    versus = [f"ours against {name}" for name in encodings if name != "ours"]
    print_table("bytes per token (vocabulary)", ["text", "bytes", *names, *versus], table)


def _count(encoding: tiktoken.Encoding, texts: Sequence[str]) -> int:
    return sum(len(encoding.encode_to_numpy(text, disallowed_special=())) for text in texts)


if __name__ == "__main__":
    main()
