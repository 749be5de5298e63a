"""Where lm-evaluation-harness and we differ, item by item, and by what each difference is explained.

    uv run python -m tests.parity.harness_differences MODEL_FOLDER DATA_FOLDER --items 200

The harness asks the same model the same items three times: with our texts and our rule, with our texts and
its own rules (`acc` by the sum of log-likelihoods, `acc_norm` by that sum per character), and, where the data
allows it, with its own texts. The first must give our answer on every item, so that the texts and the scores
behind it are the same. An answer that differs under its rules is explained if our log-likelihoods alone,
summed, or summed and divided by characters, give the harness's answer; with its own texts the text is the
one thing that is left.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Its libraries ask the network for nothing, and read this at import.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import lm_eval
from lm_eval.tasks import TaskManager

from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.evals import choice
from nanochat.evals.core import score as core
from nanochat.evals.core.bundle import load_core
from nanochat.evals.item_results import ItemResult
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.published import Published
from nanochat.harness import adapter  # noqa: F401 - makes `nanochat` known to the harness
from nanochat.harness.task_folder import HarnessTask, chat_task, core_task, write_tasks

_CORE = ("arc_easy", "hellaswag_zeroshot")
_CHAT = ("arc_easy", "mmlu")
_TIE = 1e-4  # of log-likelihoods: two ways to compute the same float32 numbers
# The harness's own texts for rows as the public data sets have them.
_THEIR_TEXTS = {
    "arc_easy": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "answers",
        "target_delimiter": " ",
    },
    "mmlu": {
        "doc_to_text": "{{question.strip()}}\nA. {{answers[0]}}\nB. {{answers[1]}}\nC. {{answers[2]}}"
        "\nD. {{answers[3]}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "target_delimiter": " ",
    },
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One item: the number of the option each rule chooses, and what they choose by."""

    task: str
    item: int
    gold: int
    ours: int
    our_scores: tuple[float, ...]  # what we compare: a mean over the tokens where the options differ
    same_rule: tuple[float, ...]  # the harness's scores for our texts and our rule
    sums: tuple[float, ...]  # its own scores for our texts
    tokens: tuple[int, ...]  # where the options differ
    characters: tuple[int, ...]
    theirs: tuple[float, ...] | None = None  # its scores for its own texts

    @property
    def agrees(self) -> bool:
        """Whether the harness with our texts and rule has our scores, and with them our answer."""
        near = max(abs(x - y) for x, y in zip(self.our_scores, self.same_rule, strict=True)) < _TIE
        return near and self.same_rule[self.ours] > max(self.same_rule) - _TIE

    def explained(self, rule: str) -> bool:
        """Whether our own scores, by the harness's rule, give the harness's answer."""
        summed = [score * n for score, n in zip(self.our_scores, self.tokens, strict=True)]
        if rule == "acc":
            return self._same(summed, self.sums)
        # The harness also counts the tokens that all options share, which do not change their order by sum,
        # but do once each sum is divided by another number.
        shared = self.sums[0] - summed[0]
        normed = [(s + shared) / n for s, n in zip(summed, self.characters, strict=True)]
        return self._same(normed, self.per_character)

    @property
    def per_character(self) -> list[float]:
        """Return what `acc_norm` compares."""
        return [s / n for s, n in zip(self.sums, self.characters, strict=True)]

    def _same(self, found: Sequence[float], theirs: Sequence[float]) -> bool:
        return found[_best(theirs)] > max(found) - _TIE * max(1, *self.tokens)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A task as the harness is to ask it, with our results."""

    task: HarnessTask
    ours: Sequence[ItemResult]
    their_texts: Mapping[str, Any] | None = None
    their_rows: Sequence[Mapping[str, Any]] = ()


def compared(pretrained: Path, published: Published, asked: Sequence[Asked], folder: Path) -> list[Compared]:
    """Ask the harness, and put its scores beside ours."""
    write_tasks(folder, [part.task for part in asked])
    names = [part.task.name for part in asked]
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    by_rule = {score: _scores(pretrained, names, manager, score) for score in ("mean", "sum")}
    own = [_their_task(part, folder) for part in asked if part.their_texts]
    theirs = _scores(pretrained, own, manager, "sum") if own else {}
    found = []
    for part in asked:
        by_item = {result.item: result for result in part.ours}
        for place, row in enumerate(part.task.rows):
            result = by_item[row["item"]]
            core_part, said = "_core_" in part.task.name, result.predictions[0]
            found.append(
                Compared(
                    task=part.task.name,
                    item=row["item"],
                    gold=row["gold"],
                    ours=int(said) if core_part else row["choices"].index(said),
                    our_scores=result.loglikelihoods,
                    same_rule=_relative(part, by_rule["mean"][part.task.name][place]),
                    sums=by_rule["sum"][part.task.name][place],
                    tokens=_differing(published, part, row),
                    characters=tuple(len(text) for text in row["choices"]),
                    theirs=theirs[f"{part.task.name}_theirs"][place] if part.their_texts else None,
                )
            )
    return found


def _scores(
    pretrained: Path, tasks: Sequence[Any], manager: TaskManager, score: str
) -> dict[str, list[tuple[float, ...]]]:
    done = lm_eval.simple_evaluate(
        model="nanochat",
        model_args={"pretrained": str(pretrained), "score": score},
        tasks=list(tasks),
        task_manager=manager,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    return {
        name: [
            tuple(scores[0] for scores in sample["filtered_resps"])
            for sample in sorted(samples, key=lambda sample: sample["doc_id"])
        ]
        for name, samples in done["samples"].items()
    }


def _relative(part: Asked, scores: tuple[float, ...]) -> tuple[float, ...]:
    """Return scores as ours are: of letters we keep the log-probability among the letters alone."""
    import torch

    if "_core_" in part.task.name:
        return scores
    return tuple(torch.tensor(scores).log_softmax(-1).tolist())


def _differing(published: Published, part: Asked, row: Mapping[str, Any]) -> tuple[int, ...]:
    """Return how many tokens of each option are scored."""
    if "_core_" not in part.task.name:
        return tuple(1 for _ in row["choices"])
    encode, delimiter = published.tokenizer.encode, part.task.delimiter
    texts = [encode(f"{row['context']}{delimiter}{choice}") for choice in row["choices"]]
    shared = next(i for i, column in enumerate(_columns(texts)) if len(set(column)) > 1)
    return tuple(len(text) - min(shared, min(map(len, texts)) - 1) for text in texts)


def _columns(texts: Sequence[Sequence[int]]) -> Iterator[tuple[int | None, ...]]:
    for i in range(max(map(len, texts)) + 1):
        yield tuple(text[i] if i < len(text) else None for text in texts)


def _their_task(part: Asked, folder: Path) -> dict[str, Any]:
    name = f"{part.task.name}_theirs"
    rows = folder / f"{name}.rows"
    rows.write_text("".join(json.dumps(row) + "\n" for row in part.their_rows), encoding="utf-8")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "num_fewshot": 0,
        "output_type": "multiple_choice",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **(part.their_texts or {}),
    }


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def asked_of(published: Published, data: Path, items: int) -> list[Asked]:
    """Return the first items of ARC, MMLU and HellaSwag with our results."""
    asked = []
    for name in _CHAT:
        task = load_scored_task(data, name)
        numbers = range(0, len(task), max(1, len(task) // items))[:items]  # MMLU is sorted by subject
        found = _all(choice.answered(published.model, published.tokenizer, task, numbers))
        rows = [_their_row(task, i) for i in numbers]
        texts = _THEIR_TEXTS[name]
        ours = chat_task(task, numbers)
        asked.append(Asked(task=ours, ours=found, their_texts=texts, their_rows=rows))
    for core_part in load_core(data, items):
        if core_part.label in _CORE:
            found = _all(
                core.answered(published.model, published.tokenizer, core_part, range(len(core_part.items)))
            )
            asked.append(Asked(task=core_task(core_part), ours=found))
    return asked


def _all(batches: Iterator[list[ItemResult]]) -> list[ItemResult]:
    return [result for batch in batches for result in batch]


def _their_row(task: ChatTask, item: int) -> dict[str, Any]:
    row, problem = task.rows[item], task.problem(item)
    gold = problem.letters.index(problem.answer)
    return {"question": row["question"], "answers": list(row["choices"]), "gold": gold}


def table(found: Sequence[Compared]) -> str:
    """Return per task how many items differ under each rule, and whether each is explained."""
    lines = [
        f"{'task':<32} {'items':>5} {'our rule':>9} {'acc':>14} {'acc_norm':>14} {'own texts':>10}",
        f"{'':<32} {'':>5} {'differ':>9} {'differ (expl.)':>14} {'differ (expl.)':>14} {'differ':>10}",
    ]
    for task in dict.fromkeys(item.task for item in found):
        items = [item for item in found if item.task == task]
        acc = [item for item in items if _best(item.sums) != item.ours]
        norm = [item for item in items if _best(item.per_character) != item.ours]
        own = [item for item in items if item.theirs and _best(item.theirs) != item.ours]
        counts = [
            f"{len(x)} ({sum(i.explained(r) for i in x)})" for r, x in (("acc", acc), ("acc_norm", norm))
        ]
        texts = str(len(own)) if items[0].theirs else "as ours"
        differ = sum(not item.agrees for item in items)
        lines.append(f"{task:<32} {len(items):>5} {differ:>9} {counts[0]:>14} {counts[1]:>14} {texts:>10}")
    return "\n".join(lines)


def item_lines(found: Sequence[Compared]) -> Iterator[str]:
    """Yield a line for every item on which some rule gives another answer, with the numbers behind it."""
    for item in found:
        choices = {"ours": item.ours, "acc": _best(item.sums), "acc_norm": _best(item.per_character)}
        if item.theirs:
            choices["own texts"] = _best(item.theirs)
        if len(set(choices.values())) > 1 or not item.agrees:
            options = " ".join(
                f"{k}: {mean:.3f} x {n} tokens, {total:.2f} / {characters} characters;"
                for k, (mean, n, total, characters) in enumerate(
                    zip(item.our_scores, item.tokens, item.sums, item.characters, strict=True)
                )
            )
            chosen = ", ".join(f"{rule} {choice}" for rule, choice in choices.items())
            yield f"{item.task} {item.item}: gold {item.gold}; {chosen}; {options}"


def main() -> None:
    """Print the table, and every item that differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=200)
    wanted = parser.parse_args()
    published = read_published(find_published(wanted.model))
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = str(Path(folder, "cache"))
        asked = asked_of(published, wanted.data, wanted.items)
        found = compared(wanted.model, published, asked, Path(folder, "tasks"))
    print(table(found))
    for line in item_lines(found):
        print(line)
    rules = ("acc", "acc_norm")
    sys.exit(0 if all(i.agrees and all(i.explained(r) for r in rules) for i in found) else 1)


if __name__ == "__main__":
    main()
