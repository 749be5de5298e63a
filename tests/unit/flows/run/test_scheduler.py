from __future__ import annotations

import random

import pytest

from flows import dag
from flows.run.scheduler import Scheduler
from flows.stage import Node, Stage
from nanochat import recipes
from nanochat.config import Config

DOWNLOAD = Stage(name="download", version=1, run="x:y", at_once=3)
TRAIN = Stage(name="tokenizer", version=1, run="x:y")
TOKENIZE = Stage(name="tokenize", version=1, run="x:y")


def node(stage, name, **inputs):
    return Node(id=f"{stage.name}/{name}", stage=stage, config=Config(), inputs=inputs)


def fan_out(shards):
    download = [node(DOWNLOAD, i) for i in range(shards)]
    tokenizer = node(TRAIN, "0", shards=(download[0].id, download[1].id))
    tokens = [node(TOKENIZE, i, shard=d.id, tokenizer=tokenizer.id) for i, d in enumerate(download)]
    return [*download, tokenizer, *tokens]


def started(scheduler):
    return [n.id for n in scheduler.take_ready()]


def test_the_next_stages_start_while_later_shards_still_download():
    scheduler = Scheduler(fan_out(9), workers=2)
    assert started(scheduler) == ["download/0", "download/1", "download/2"]
    scheduler.done("download/1")
    assert started(scheduler) == ["download/3"]
    scheduler.done("download/0")
    assert started(scheduler) == ["download/4", "tokenizer/0"]
    scheduler.done("download/2")
    assert started(scheduler) == ["download/5"]
    scheduler.done("tokenizer/0")
    assert started(scheduler) == ["tokenize/0", "tokenize/1"]  # as many as workers; shard 2 waits for a place
    scheduler.done("tokenize/1")
    assert started(scheduler) == ["tokenize/2"]
    assert not scheduler.all_done


@pytest.mark.parametrize("seed", range(5))
def test_every_node_of_a_recipe_starts_once_after_its_inputs_whatever_the_order_of_ends(seed):
    nodes = dag.build(recipes.find("toy", ["corpus.train_shards=7"]))
    scheduler, rng = Scheduler(nodes, workers=3), random.Random(seed)
    running, done = [], []
    while not scheduler.all_done:
        for n in scheduler.take_ready():
            assert set(dag.input_ids(n)) <= set(done)
            running.append(n.id)
        assert sum(i.startswith("tokenize/") for i in running) <= 3
        done.append(running.pop(rng.randrange(len(running))))
        scheduler.done(done[-1])
    assert sorted(done) == sorted(n.id for n in nodes)


def test_inputs_outside_of_the_plan_are_not_waited_for():
    assert started(Scheduler([node(TOKENIZE, "0", shard="download/0")], workers=1)) == ["tokenize/0"]
