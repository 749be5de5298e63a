"""The toy recipe at its smallest: every stage and kind of task, in seconds; for runs that are ended often."""

from __future__ import annotations

from tests.e2e.conftest import SMALL

TINY = {
    **SMALL,
    "depth": 1,
    "corpus.train_shards": 1,
    "corpus.toy.documents_per_shard": 150,
    "tasks.toy.questions": 24,
    "tasks.toy.held_out": 4,
    "pretrain.steps": 200,
    "pretrain.sample_every": 200,
    "pretrain.eval_every": 100,
    "midtrain.batch_tokens": 512,
    "midtrain.epochs": 4,
    "sft.batch_rows": 8,
    "sft.epochs": 4,
    "evaluate.max_problems": 2,
    "evaluate.core_max_problems": 2,
}
OVERRIDES = [f"{name}={value}" for name, value in TINY.items()]
WORDS = [word for override in OVERRIDES for word in ("-o", override)]
