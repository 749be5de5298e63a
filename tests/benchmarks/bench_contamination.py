"""How fast a text shard is searched for the evaluation tasks, against plain Python loops.

    uv run python tests/benchmarks/bench_contamination.py --data FOLDER

The baseline keeps the runs of 13 words of all items as tuples in a set and looks up every run of a document.
Both must find the same documents. Preparing the items is timed apart: a shard has to wait for it once.
"""

from __future__ import annotations

import argparse
import os

# One core for both; polars reads it when it is imported.
os.environ["POLARS_MAX_THREADS"] = "1"

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import regex

from nanochat.config import EvaluateConfig, OverlapConfig
from nanochat.evals.contamination.ngrams import GramIndex
from nanochat.evals.contamination.search import items_of_tasks
from tests.benchmarks.measuring import hardware, measure, print_table
from tests.benchmarks.texts import documents, shard_files

N = 13
_WORD = regex.compile(r"[\p{L}\p{N}]+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    print(hardware())
    config = OverlapConfig(ngram_words=N, chat_tasks=EvaluateConfig().chat_tasks, core=True)
    tasks, core = items_of_tasks(config, arguments.data)
    items = [text for part in (tasks, core) for texts in part.values() for text in texts]
    texts = list(documents(shard_files(arguments.data / "pretrain")[-2:-1]))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6

    index, known = GramIndex(pl.Series(items), N), {gram for text in items for gram in _grams(text)}
    ours, loops = _search(index, texts), {i for i, t in enumerate(texts) if not known.isdisjoint(_grams(t))}
    if ours != loops:
        raise SystemExit(f"not the same documents: {sorted(ours ^ loops)}")
    times = {
        "preparing the items": (
            measure(lambda _: GramIndex(pl.Series(items), N), 3),
            measure(lambda _: {gram for text in items for gram in _grams(text)}, 3),
        ),
        "searching the text": (
            measure(lambda _: _search(index, texts), 3),
            measure(lambda _: [known.isdisjoint(_grams(text)) for text in texts], 3),
        ),
    }
    rows = [
        [what, f"{here} ({megabytes / here.cpu:.0f} MB/s)" if "text" in what else here, there,
         f"{there.cpu / here.cpu:.1f}x"]
        for what, (here, there) in times.items()
    ]  # fmt: skip
    title = (
        f"{len(items):,} items with {len(index):,} different runs of {N} words, {megabytes:.1f} MB of text;"
        f" {len(ours)} documents overlap; ratios of CPU time on one core"
    )
    print_table(title, ["work", "ours", "loops over tuples", "ratio"], rows)


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return zip(*(words[i:] for i in range(N)), strict=False)


def _search(index: GramIndex, texts: list[str]) -> set[int]:
    found: set[int] = set()
    for first in range(0, len(texts), 1024):
        shared = index.find(pl.Series(texts[first : first + 1024]))
        found |= {first + int(i) for i in shared.texts}
    return found


if __name__ == "__main__":
    main()
