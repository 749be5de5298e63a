"""A byte-level tokenizer, two small token shards and a few conversations for training stages."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nanochat.config import ChatDataConfig, MixtureEntry
from nanochat.data.chat.chat_tokens import render_chat
from nanochat.data.text.token_shards import write_token_shard
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def stage_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `tokenizer`, `train_tokens`, `val_tokens`, `tasks` and rendered, as `chat`, all of them."""
    root = tmp_path_factory.mktemp("stage_inputs")
    draw = random.Random(0)
    tokenizer = Tokenizer.from_ranks({bytes([i]): i for i in range(256)})
    (root / "tokenizer").mkdir()
    tokenizer.save(root / "tokenizer")
    words = ("red", "green", "blue", "one", "two", "three", "é")

    def text(most: int = 30) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(1, most)))

    for name in ("train_tokens/shard_00000", "train_tokens/shard_00001", "val_tokens"):
        write_token_shard(root / name, [[text().encode() for _ in range(40)]], tokenizer)
    (root / "tasks/conversations").mkdir(parents=True)
    with (root / "tasks/conversations/talk.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(60):
            pair = [{"role": "user", "content": text(3)}, {"role": "assistant", "content": text(8)}]
            file.write(json.dumps({"messages": pair}) + "\n")
    config = ChatDataConfig(mixture=(MixtureEntry(task="talk", repeat=2),), max_tokens=48)
    render_chat(config, {name: root / name for name in ("tokenizer", "tasks")}, root / "chat", Runtime())
    return root
