"""What others published for a recipe of ours, and whether records are of that recipe.

Two sources for `d20`: upstream's own run, and an independent one whose model card ours follows. The second
is at chance in multiple choice; published runs of this recipe lie up to twenty points apart there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.config.base import Config
from nanochat.evals.results import BenchmarkRow, measure_text
from nanochat.recipes.classic import d20

# Fields that change which texts are shown, what is measured while training, or the last digits.
_ASIDE = {"prompts", "eval_every", "eval_tokens", "sample_every", "compute", "seed"}


@dataclass(frozen=True, kw_only=True)
class PublishedScores:
    """The scores of one published model: accuracies and means, named as in `results.json`."""

    title: str  # of a column
    source: str
    tasks: Mapping[str, float]
    metrics: Mapping[str, float]

    def text(self, row: BenchmarkRow, *, brief: bool = False) -> str:
        """Return what was published for a row of the benchmark table."""
        scores = {"tasks": self.tasks, "metrics": self.metrics}.get(row.part, {})
        return measure_text(row.part, scores.get(row.name), brief=brief)


D20 = (
    PublishedScores(
        title="published",
        source="nanochat's README of October 2025, CORE of the base model and all else after SFT",
        tasks={
            "mmlu": 0.3151,
            "gsm8k": 0.0455,
            "humaneval": 0.0854,
            "arc_easy": 0.3876,
            "arc_challenge": 0.2807,
        },
        metrics={"chatcore": 0.0884, "core": 0.2219},
    ),
    PublishedScores(
        title="independent",
        source="the model card of sdobson/nanochat on the Hugging Face hub",
        tasks={
            "mmlu": 0.2399,
            "gsm8k": 0.0447,
            "humaneval": 0.0671,
            "arc_easy": 0.2479,
            "arc_challenge": 0.2432,
        },
        metrics={"chatcore": 0.0173},
    ),
)


def published_scores(records: Iterable[Mapping[str, Any]]) -> tuple[PublishedScores, ...]:
    """Return what was published for the recipe that records are of; nothing where it is another recipe."""
    return D20 if _is_d20(list(records)) else ()


def _is_d20(records: list[Mapping[str, Any]]) -> bool:
    """Compare what the records were made with; where their text and data came from is not part of them."""
    recipe = d20()
    made = {record["stage"]: record for record in records}
    sections = {"tokenizer": recipe.tokenizer, **recipe.training}
    if not all(_same(section, _config(made.get(stage))) for stage, section in sections.items()):
        return False
    shards = [_config(record) for record in records if record["stage"] == "download"]
    numbers = sorted(shard.get("index", 0) for shard in shards)
    if numbers != list(range((recipe.corpus.train_shards or 0) + 1)) or any(s.get("toy") for s in shards):
        return False
    # Text is made into tokens with a tokenizer and a shard; more is a list of documents to leave out.
    dropped = any(len(r.get("inputs", {})) > 2 for r in records if r["stage"] == "tokenize")
    tasks = _config(made.get("tasks"))
    own = any(str(file.get("path", "")).startswith("own/") for file in tasks.get("files", ()))
    return bool(tasks) and not (dropped or own or tasks.get("toy"))


def _same(section: Config, config: Mapping[str, Any]) -> bool:
    expected = section.identity()
    return {k: v for k, v in expected.items() if k not in _ASIDE} == {
        k: v for k, v in config.items() if k not in _ASIDE
    }


def _config(record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    config = (record or {}).get("payload", {}).get("config")
    return config if isinstance(config, Mapping) else {}
