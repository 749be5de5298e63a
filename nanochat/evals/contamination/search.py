"""The stage that looks for the evaluation tasks in training text: one node per training shard.

An item overlaps with a document if both have the same n words in a row. Only an item's own text counts
(question with choices or answer, prompt with solution, context with continuation), not the words that prompts
put around it. An overlap need not be a leak: quoted passages and lists of numbers overlap as well. All items
of a task are looked for, whatever part of them an evaluation asks. Runs of words come from
`nanochat.evals.contamination.ngrams`; what is written is a `nanochat.evals.contamination.overlap` and the
numbers of the documents.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.config import OverlapConfig
from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.data.text.left_out import write_left_out
from nanochat.evals.contamination.ngrams import GramIndex, Mask, Numbers, pieces
from nanochat.evals.contamination.overlap import FILE_NAME, Overlap, TaskOverlap
from nanochat.evals.core.bundle import CoreTask, load_core
from nanochat.runtime import Runtime

_BATCH_DOCUMENTS = 1024
_LONG_BYTES = 64 << 20  # of a batch: usual documents are some KB each
_CHAT_FIELDS = {
    "choice": ("question", "choices"),
    "math": ("question", "answer"),
    "code": ("prompt", "canonical_solution"),
}
_CORE_FIELDS = {
    "multiple_choice": ("query", "choices"),
    "schema": ("context_options", "continuation"),
    "language_modeling": ("context", "continuation"),
}


def find_overlap(
    config: OverlapConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Search `text.parquet` of the `shard` for the `tasks`.

    Writes `contamination.json`, and the numbers of the documents that overlap as `documents.npy`.
    """
    tasks, core = items_of_tasks(config, inputs["tasks"])
    texts = [text for part in (tasks, core) for task_texts in part.values() for text in task_texts]
    index = GramIndex(pl.Series(texts, dtype=pl.String), config.ngram_words)
    documents, grams, total = _search(index, inputs["shard"] / "text.parquet", config.ngram_words, runtime)
    long_enough, overlapping = index.long_enough(), index.holders(grams)
    starts = _starts([*tasks.values(), *core.values()])
    found = [
        TaskOverlap(
            items=stop - start,
            too_short=stop - start - len(_between(long_enough, start, stop)),
            overlapping=tuple(_between(overlapping, start, stop).tolist()),
        )
        for start, stop in pairwise(starts)
    ]
    Overlap(
        ngram_words=config.ngram_words,
        shards=1,
        documents=total,
        overlapping_documents=len(documents),
        tasks=dict(zip(tasks, found, strict=False)),
        core=dict(zip(core, found[len(tasks) :], strict=True)),
    ).write(out / FILE_NAME)
    write_left_out(out, documents)
    return {
        "documents": total,
        "overlapping_documents": len(documents),
        "items": len(texts),
        "judged_items": len(long_enough),
        "overlapping_items": len(overlapping),
    }


def items_of_tasks(config: OverlapConfig, root: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the texts of the items of chat tasks and of CORE by task; raises what evaluation raises.

    Items of chat tasks are numbered as in their file, those of CORE in the order in which they are asked.
    """
    tasks = {name: _chat_texts(load_scored_task(root, name)) for name in config.chat_tasks}
    core = {task.label: _core_texts(task) for task in load_core(root, None)} if config.core else {}
    return tasks, core


def _chat_texts(task: ChatTask) -> list[str]:
    if isinstance(task.rows, range):  # made from seeds: only the words of the question are its own
        return [str(task.conversation(i)[0]["content"]) for i in range(len(task))]
    return [_joined(row, _CHAT_FIELDS[task.kind]) for row in task.rows]


def _core_texts(task: CoreTask) -> list[str]:
    return [_joined(item, _CORE_FIELDS[task.kind]) for item in task.items]


def _joined(item: Mapping[str, Any], fields: Sequence[str]) -> str:
    parts = [item[field] for field in fields]
    return "\n".join(str(text) for part in parts for text in ([part] if isinstance(part, str) else part))


def _search(index: GramIndex, path: Path, ngram_words: int, runtime: Runtime) -> tuple[Numbers, Mask, int]:
    """Return the documents that overlap, which grams of the index they hold, and the number of all."""
    started = time.monotonic()
    grams = np.zeros(len(index), np.bool_)
    documents = [np.zeros(0, np.int64)]
    done, total = 0, pq.read_metadata(path).num_rows
    for numbers, texts in _texts(path, ngram_words):
        runtime.raise_if_stopped()
        shared = index.find(texts)
        documents.append(numbers[shared.texts])
        grams[shared.grams] = True
        done = int(numbers[-1]) + 1
        rate = done / max(time.monotonic() - started, 1e-9)
        runtime.tracker.log({"throughput/documents_per_s": rate}, step=done, total_steps=total)
    return np.unique(np.concatenate(documents)), grams, done


def _texts(path: Path, ngram_words: int) -> Iterator[tuple[Numbers, pl.Series]]:
    """Yield texts with the numbers of their documents, in order; a null is an empty one.

    Documents come a batch at a time, or one by one and in pieces where some of a batch are long.
    """
    first = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["text"]):
            texts = batch.column(0)
            if texts.nbytes <= _LONG_BYTES:
                yield np.arange(first, first + len(texts)), pl.Series("text", texts).fill_null("")
            else:
                for number, text in enumerate(texts.cast(pa.large_binary()), first):
                    for piece in pieces(text.as_py() or b"", ngram_words):
                        yield np.array([number]), pl.Series([piece])
            first += len(texts)


def _starts(tasks: Sequence[Sequence[str]]) -> list[int]:
    """Return the number of each task's first item among all, and the number of all."""
    return [0, *accumulate(map(len, tasks))]


def _between(numbers: Numbers, start: int, stop: int) -> Numbers:
    """Return those of sorted numbers that are in a range, counted from its start."""
    first, last = np.searchsorted(numbers, (start, stop))
    return numbers[first:last] - start
