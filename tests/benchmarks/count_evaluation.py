"""How many tokens our evaluation reads, scores and writes for an item of each task: what `plan` counts with.

    uv run python tests/benchmarks/count_evaluation.py --data FOLDER

Trains a tokenizer of 65,536 tokens on the text below FOLDER/pretrain and prints, for each task in the data,
the means over some of its items for the tables of tasks in `nanochat/data/chat`. Beginnings that rows share
are read once, as the scorers do. A reply is as long as the reference answer; a batch of them takes at most as
many steps as its longest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean

from nanochat.config import EvaluateConfig, TokenizerConfig
from nanochat.costs.evaluation_cost import WRITTEN_TOGETHER
from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.evals.core import score
from nanochat.evals.core.bundle import CoreTask, load_core
from nanochat.model.packed_rows import packed_size
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import render, render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=400, help="most items of a task that are looked at")
    arguments = parser.parse_args()
    data, most = arguments.data, arguments.items
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = trained(data / "pretrain", Path(folder))
    for name in EvaluateConfig().chat_tasks:
        print(f'    "{name}": {chat_line(tokenizer, load_scored_task(data, name), most)},', flush=True)
    for task in load_core(data, None):
        print(f'    "{task.label}": {core_line(tokenizer, task, most)},', flush=True)


def trained(text: Path, folder: Path) -> Tokenizer:
    """Train a tokenizer of the published size on all text there is."""
    for number, shard in enumerate(sorted(text.glob("*.parquet"))):
        (folder / f"shards/{number:05d}").mkdir(parents=True)
        (folder / f"shards/{number:05d}/text.parquet").symlink_to(shard.resolve())
    config = TokenizerConfig(train_shards=1000)
    (folder / "tokenizer").mkdir()
    train_tokenizer(config, {"shards": folder / "shards"}, folder / "tokenizer", Runtime())
    return Tokenizer.load(folder / "tokenizer")


def chat_line(tokenizer: Tokenizer, task: ChatTask, most: int) -> str:
    """Return what a problem of a chat task costs: prompt, and for written answers steps of a batch."""
    conversations = [task.conversation(i) for i in range(0, len(task), -(-len(task) // most))]
    prompts = [len(render_for_completion(tokenizer, conversation)) for conversation in conversations]
    if task.kind == "choice":
        return f"prompt_tokens={fmean(prompts):.0f}"
    replies = [len(render(tokenizer, c)[0]) - p for c, p in zip(conversations, prompts, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: -prompts[i])
    batches = [order[i : i + WRITTEN_TOGETHER] for i in range(0, len(order), WRITTEN_TOGETHER)]
    steps = fmean(max(replies[i] for i in batch) for batch in batches)
    return f"prompt_tokens={fmean(prompts):.0f}, reply_steps={steps:.0f}"


def core_line(tokenizer: Tokenizer, task: CoreTask, most: int) -> str:
    """Return what an item of a CORE task costs: tokens read, and tokens whose successors are scored."""
    rows = [score._rows(tokenizer, task, i, limit=20_480) for i in range(min(most, len(task.items)))]
    read = fmean(packed_size([row.tokens[:-1] for row in item]) for item in rows)
    scored = fmean(sum(len(row.tokens) - row.start for row in item) for item in rows)
    return f"read={read:.0f}, scored={scored:.1f}"


if __name__ == "__main__":
    main()
