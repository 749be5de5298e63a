"""The pipeline on one screen: which stage feeds which.

A recipe becomes a list of nodes in an order in which they can run; a stage that fans out has one node per
text shard. Nothing is read or run here, except to list sources that do not name their shards, and Prefect is
not imported: planning must stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from flows import stages
from flows.stage import Node, Stage
from nanochat.config import ChatDataConfig, Config, MidtrainConfig, OverlapConfig, Recipe, SftConfig
from nanochat.data.sources.chat_data import resolve_tasks
from nanochat.data.sources.corpus import Corpus, resolve_corpus
from nanochat.errors import ConfigError

MIDTRAIN_MAX_TOKENS = 2048
"""Where midtraining cuts off each conversation before laying them end to end, as upstream does."""


def build(recipe: Recipe, corpus: Corpus | None = None) -> tuple[Node, ...]:
    """Return the nodes of a recipe, inputs before the nodes that need them.

    `corpus` is what the recipe's source was resolved to, where somebody did that already.
    """
    corpus = corpus or resolve_corpus(recipe.corpus)
    train, val = corpus.train, corpus.validation
    _require_shards(recipe, len(train))
    shards = (*train, val)
    node = _node

    download = [node(stages.DOWNLOAD, shard, shard.name) for shard in shards]
    tasks = node(stages.TASKS, resolve_tasks(recipe.tasks))
    tokenizer = node(stages.TOKENIZER, recipe.tokenizer, shards=download[: recipe.tokenizer.train_shards])
    searched = _overlap_config(recipe)
    contamination = [
        node(stages.CONTAMINATION, searched, shard.name, shard=text, tasks=tasks)
        for shard, text in zip(train, download[:-1], strict=True)
    ]
    drops = [{"contamination": found} if recipe.contamination.drop else {} for found in contamination]
    tokens = [
        node(stages.TOKENIZE, recipe.tokenize, shard.name, shard=text, tokenizer=tokenizer, **drop)
        for shard, text, drop in zip(shards, download, [*drops, {}], strict=True)
    ]
    train_tokens, val_tokens = tokens[:-1], tokens[-1]
    pretrain = node(
        stages.PRETRAIN,
        recipe.pretrain,
        tokenizer=tokenizer,
        train_tokens=train_tokens,
        val_tokens=val_tokens,
    )
    render_mid, render_sft = (
        node(stages.RENDER, chat, name, tokenizer=tokenizer, tasks=tasks)
        for name, chat in _chat_data(recipe).items()
    )
    midtrain = node(stages.MIDTRAIN, recipe.midtrain, tokenizer=tokenizer, model=pretrain, chat=render_mid)
    sft = node(stages.SFT, recipe.sft, tokenizer=tokenizer, model=midtrain, chat=render_sft)
    evaluations = [
        node(stage, recipe.evaluate, tokenizer=tokenizer, model=model, tasks=tasks, val_tokens=val_tokens)
        for stage, model in (
            (stages.EVALUATE_BASE, pretrain),
            (stages.EVALUATE_MID, midtrain),
            (stages.EVALUATE_SFT, sft),
        )
    ]
    publish = node(
        stages.PUBLISH,
        recipe.publish,
        tokenizer=tokenizer,
        model=sft,
        **{e.stage.name: e for e in evaluations},
        contamination=contamination,
    )
    text = (*download, tasks, tokenizer, *contamination, *tokens)
    return _distinct((*text, render_mid, render_sft, pretrain, midtrain, sft, *evaluations, publish))


def _require_shards(recipe: Recipe, there: int) -> None:
    wanted = recipe.tokenizer.train_shards
    if wanted > there:
        raise ConfigError(
            f"tokenizer.train_shards is {wanted}, but the corpus has only {there} training shards",
            hint=f"use -o tokenizer.train_shards={there} or more corpus.train_shards",
        )


def _distinct(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes; raise ConfigError if two have the same id, since one would stand for both."""
    first: dict[str, Node] = {}
    for node in nodes:
        if (other := first.setdefault(node.id, node)) is not node:
            raise ConfigError(
                f"two nodes would have the id {node.id}: {_origin(other)} and {_origin(node)}",
                hint="give the files of the source different names",
            )
    return nodes


def _origin(node: Node) -> str:
    return str(getattr(node.config, "url", None) or node.config)


def _overlap_config(recipe: Recipe) -> OverlapConfig:
    """Return what text is searched for: fields that do not matter for it do not change the key."""
    asked = recipe.evaluate
    words = recipe.contamination.ngram_words
    return OverlapConfig(ngram_words=words, chat_tasks=asked.chat_tasks, core=asked.core)


def _chat_data(recipe: Recipe) -> dict[str, ChatDataConfig]:
    """Return what each chat stage is given; SFT's rows end with the context that was trained."""

    def of(
        config: MidtrainConfig | SftConfig, max_tokens: int, targets: Literal["all", "answers"]
    ) -> ChatDataConfig:
        return ChatDataConfig(
            mixture=config.mixture,
            validation=config.validation,
            seed=config.seed,
            max_tokens=max_tokens,
            targets=targets,
        )

    context = recipe.pretrain.model.sequence_len
    return {
        "midtrain": of(recipe.midtrain, MIDTRAIN_MAX_TOKENS, "all"),
        "sft": of(recipe.sft, context, "answers"),
    }


def ancestors(nodes: Sequence[Node], ids: Sequence[str]) -> set[str]:
    """Return the given ids and those of everything they are made from."""
    by_id = {node.id: node for node in nodes}
    found: set[str] = set()
    todo = list(ids)
    while todo:
        node_id = todo.pop()
        if node_id not in found:
            found.add(node_id)
            todo.extend(input_ids(by_id[node_id]))
    return found


def input_ids(node: Node) -> list[str]:
    """Return the ids of all inputs of a node, in order."""
    return [i for value in node.inputs.values() for i in ([value] if isinstance(value, str) else value)]


def _node(stage: Stage, config: Config, of: str | None = None, /, **inputs: Node | Sequence[Node]) -> Node:
    return Node(
        id=f"{stage.name}/{of}" if of else stage.name,
        stage=stage,
        config=config,
        inputs={k: v.id if isinstance(v, Node) else tuple(n.id for n in v) for k, v in inputs.items()},
    )
