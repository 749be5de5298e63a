"""What a run is made from: text, chat data, the tokenizer, and what is looked for in the text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from nanochat.config.base import Config
from nanochat.config.names import Name, Place

TOKEN_SHARD_FORMAT = 2
"""Version of the file that `nanochat.data.text.token_shards` writes."""


def bytes_per_token(vocab_size: int) -> int:
    """Return the bytes of one id in a token shard: as few as the vocabulary allows."""
    return 2 if vocab_size <= 2**16 else 4


class ToyWorldConfig(Config):
    """Size and seed of the built-in world."""

    seed: int = 1337
    """Seed of the generator."""
    documents_per_shard: int = Field(default=4000, gt=0)
    """Documents in each text shard."""
    questions: int = Field(default=4000, gt=0)
    """Training rows of each chat task (multiple choice, word problems, functions, small talk)."""
    held_out: int = Field(default=200, gt=0)
    """Held-out test rows of each task."""


class CorpusConfig(Config):
    """Which pretraining text."""

    source: str = "toy"
    """`toy` (built in), a folder or fsspec URL of parquet files with a `text` column, also in sub-folders, or
    a URL with `{revision}` and `{index:05d}` in it."""
    revision: str | None = None
    """Pinned revision of the source, filled into `{revision}`."""
    train_shards: int | None = Field(default=None, gt=0, le=100_000)
    """Number of training shards, in order of name or number; None: all but the validation shard."""
    val_shard: str | None = None
    """Validation shard, which stays the same when shards are added: the name of a file (or its path in the
    source), or the number of a shard of `toy` or of a numbered source. None: the file whose name, or whose
    folder's name, begins with `val`, `valid` or `validation`; of `toy` shard 2."""
    toy: ToyWorldConfig = ToyWorldConfig()


class ShardConfig(Config):
    """One text shard, resolved from a `CorpusConfig`: what it is, and separately where it is."""

    location_fields: ClassVar[frozenset[str]] = frozenset({"url"})

    name: Name
    """What tells the shard from the others of its source, such as `shard_00000`: part of ids and paths."""
    index: int = 0
    """Number of the shard in a source that numbers them."""
    toy: ToyWorldConfig | None = None
    """Set when the shard is generated."""
    size_bytes: int | None = None
    """Expected size, when the source lists it."""
    version: str | None = None
    """What distinguishes contents of the same name: revision, ETag or modification time."""
    url: str | None = None
    """Where the bytes are; not part of the identity."""


class SourceFile(Config):
    """One file of the chat and evaluation data."""

    path: Place
    """Path below the data root, such as `tasks/gsm8k/train.jsonl`."""
    size_bytes: int | None = None
    """Expected size, when the source lists it."""
    version: str | None = None
    """What distinguishes contents of the same path."""


class TasksConfig(Config):
    """Which chat and evaluation data; resolved (`files` filled) when the run is planned."""

    location_fields: ClassVar[frozenset[str]] = frozenset(
        {"source", "revision", "core_url", "words_url", "identity_url", "own"}
    )

    source: str = "toy"
    """`toy` (built in), `hub` (the public data sets named in `nanochat/data/sources/hub.py`; `hub:URL`: a
    mirror), or a folder or fsspec URL with `tasks/`, `conversations/` and `core/` below it."""
    revision: str = "refs/convert/parquet"
    """Revision of the data sets on the hub, which becomes the version of their files: a branch of parquet
    files, or the commit that pins one."""
    core_url: str = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
    """Where to get the CORE bundle that goes with the hub's data sets; the file's name is its version."""
    words_url: str | None = None
    """Where the hub's source gets the list of words (one per line) for the tasks `spelling` and
    `spelling_bee`; the file's name is its version. None: neither task. A folder has the list at
    `tasks/words.txt`."""
    identity_url: str | None = None
    """Where the hub's source gets conversations about who the model is (task `identity`, one list of messages
    per line); the file's name is its version. None: no such task. A folder has them at
    `conversations/identity.jsonl`."""
    own: tuple[str, ...] = ()
    """Your own conversations: a path or URL, or a list of them, of `.jsonl` files with
    `{"messages": [{"role": …, "content": …}, …]}` on each line. They join what midtraining and SFT train on,
    each row once, and validate only where `midtrain.validation` or `sft.validation` names them."""
    toy: ToyWorldConfig | None = ToyWorldConfig()
    """Set when the data is generated."""
    files: tuple[SourceFile, ...] = ()
    """The files found at the source; filled in by the planner."""

    @field_validator("own", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class TokenizerConfig(Config):
    """How the tokenizer is trained."""

    vocab_size: int = Field(default=65536, ge=300, le=2**24)
    """Number of token ids, the nine special tokens included."""
    train_shards: int = Field(default=8, gt=0)
    """Number of training shards it reads, from the first."""
    max_chars: int = Field(default=2_000_000_000, gt=0)
    """Maximum characters read, over all shards."""
    doc_cap: int = Field(default=10_000, gt=0)
    """Maximum characters read from one document."""
    min_count: int = Field(default=2, gt=0)
    """Words seen less often are left out: this costs no compression and halves the work."""


class TokenizeConfig(Config):
    """How text becomes tokens; the tokenizer itself is an input."""

    format_version: int = TOKEN_SHARD_FORMAT
    """Version of the token shard format."""


class ContaminationConfig(Config):
    """How pretraining text is checked against the evaluation tasks."""

    ngram_words: int = Field(default=13, gt=0)
    """A document overlaps with an item if they share this many words in a row."""
    drop: bool = False
    """Whether documents that overlap are left out of the training tokens. The tokenizer still learns from
    them, and the validation shard stays whole."""


class OverlapConfig(Config):
    """What one text shard is searched for: filled in from `ContaminationConfig` and `EvaluateConfig`."""

    ngram_words: int = Field(gt=0)
    """Words that count as an overlap."""
    chat_tasks: tuple[Name, ...]
    """Tasks whose test items are looked for."""
    core: bool
    """Whether to look for the items of the CORE bundle."""


class MixtureEntry(Config):
    """One data set of a chat mixture."""

    task: Place
    """Name of the data set: `arc_easy`, `arc_challenge`, `mmlu`, `gsm8k`, `humaneval`, `spelling`,
    `spelling_bee`, the name of a file below `conversations/`, or `own/NAME` for a file of `tasks.own`."""
    split: Name = "train"
    """Which part of the data set, such as `train` or `test`."""
    rows: int | None = Field(default=None, gt=0)
    """Rows to take, the first after shuffling; None: all."""
    shuffle: bool = True
    """Whether the data set is shuffled before its first rows are taken; the mixture always is."""
    repeat: int = Field(default=1, gt=0, le=10_000)
    """How many times each row occurs in an epoch."""


class ChatDataConfig(Config):
    """Which conversations a chat stage is given, as tokens."""

    mixture: tuple[MixtureEntry, ...] = ()
    validation: tuple[MixtureEntry, ...] = ()
    seed: int = 42
    """Decides the order of the mixture."""
    max_tokens: int = Field(default=2048, gt=0)
    """Where a conversation is cut off."""
    targets: Literal["all", "answers"] = "answers"
    """What is trained on: every token, or what the assistant says."""
