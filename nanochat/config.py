"""What is produced: the frozen, validated configuration of every stage.

Every field here is part of a result's identity and is hashed into its key, except the `location_fields`
of a class (where bytes come from, not what they are). Where and how fast things run is
`nanochat.runtime`. The docstring below a field is its help text. This module imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Channels of an embedding that decide how much of the previous token is mixed in (architecture 2026).
SMEAR_CHANNELS = 24


class Config(BaseModel):
    """Base of all configuration: frozen, no unknown fields, field docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )
    location_fields: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """Return what is hashed: every field but those that only say where bytes are.

        A field that a stage got later has an `exclude_if` for the value that stands for what the stage did
        before: keys made earlier stay valid.
        """
        return self.model_dump(mode="json", exclude=set(self.location_fields))


def _require_whole_rows(name: str, batch_tokens: int, sequence_len: int) -> None:
    if batch_tokens % sequence_len:
        raise ValueError(
            f"{name} is {batch_tokens}, not a multiple of model.sequence_len ({sequence_len});"
            f" use {_multiples(batch_tokens, sequence_len)}"
        )


def _is_empty(value: object) -> bool:
    return not value


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
    """`toy` (built in), a folder or fsspec URL of parquet files with a `text` column, or a URL with
    `{revision}` and `{index:05d}` in it."""
    revision: str | None = None
    """Pinned revision of the source, filled into `{revision}`."""
    train_shards: int | None = Field(default=None, gt=0)
    """Number of training shards, in order of name; None: all but the validation shard."""
    val_shard: str = "last"
    """Validation shard: `last` (by name), a file name, or an index into a numbered source."""
    toy: ToyWorldConfig = ToyWorldConfig()


class ShardConfig(Config):
    """One text shard, resolved from a `CorpusConfig`: what it is, and apart from that where it is."""

    location_fields: ClassVar[frozenset[str]] = frozenset({"url"})

    name: str
    """File name without suffix, such as `shard_00000`."""
    index: int = 0
    """Number of the shard in its source."""
    toy: ToyWorldConfig | None = None
    """Set when the shard is generated."""
    size_bytes: int | None = None
    """Expected size, when the source lists it."""
    version: str | None = None
    """What tells two contents of the same name apart: revision, ETag or modification stamp."""
    url: str | None = None
    """Where the bytes are; not part of the identity."""


class SourceFile(Config):
    """One file of the chat and evaluation data."""

    path: str
    """Path below the data root, such as `tasks/gsm8k/train.jsonl`."""
    size_bytes: int | None = None
    """Expected size, when the source lists it."""
    version: str | None = None
    """What tells two contents of the same path apart."""


class TasksConfig(Config):
    """Which chat and evaluation data; resolved (`files` filled) when the run is planned."""

    location_fields: ClassVar[frozenset[str]] = frozenset(
        {"source", "revision", "core_url", "words_url", "own"}
    )

    source: str = "toy"
    """`toy` (built in), `hub` (the public data sets named in `nanochat/data/hub.py`; `hub:URL`: a mirror), or
    a folder or fsspec URL with `tasks/`, `conversations/` and `core/` below it."""
    revision: str = "refs/convert/parquet"
    """Revision of the data sets on the hub, which becomes the version of their files: a branch of parquet
    files, or the commit that pins one."""
    core_url: str = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
    """Where the CORE bundle is that goes with the hub's data sets; the file's name is its version."""
    words_url: str | None = None
    """Where the hub's source gets the list of words (one a line) for the tasks `spelling` and `spelling_bee`;
    the file's name is its version. None: neither task. A folder has the list at `tasks/words.txt`."""
    own: tuple[str, ...] = ()
    """Your own conversations: a path or URL, or a list of them, of `.jsonl` files with
    `{"messages": [{"role": …, "content": …}, …]}` on each line. They join what midtraining and SFT train on,
    each row once."""
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
    """The first so many training shards are read."""
    max_chars: int = Field(default=2_000_000_000, gt=0)
    """Characters read at most, over all shards."""
    doc_cap: int = Field(default=10_000, gt=0)
    """Characters read at most of one document."""
    min_count: int = Field(default=2, gt=0)
    """Words seen less often are left out: free in compression, and half the work."""
    pattern: Literal["gpt4", "prose"] = Field(default="gpt4", exclude_if=lambda name: name == "gpt4")
    """Where words end. `gpt4`: between letters, digits (at most two together) and marks; `prose`, an
    experiment: at white space only, so that a token may join them."""


class TokenizeConfig(Config):
    """How text becomes tokens; the tokenizer itself is an input."""

    format_version: int = 2
    """Version of the token shard format."""


class ContaminationConfig(Config):
    """How pretraining text is held against the evaluation tasks."""

    ngram_words: int = Field(default=13, gt=0)
    """A document overlaps with an item if they share so many words in a row."""
    drop: bool = False
    """Whether documents that overlap are left out of the training tokens. The tokenizer still learns from
    them, and the validation shard stays whole."""


class OverlapConfig(Config):
    """What one text shard is searched for: filled in from `ContaminationConfig` and `EvaluateConfig`."""

    ngram_words: int = Field(gt=0)
    """Words that count as an overlap."""
    chat_tasks: tuple[str, ...]
    """Tasks whose test items are looked for."""
    core: bool
    """Whether to look for the items of the CORE bundle."""


def _default_window_pattern(given: Mapping[str, Any]) -> str | None:
    return "SSSL" if given.get("architecture") == "2026" else None


class ModelConfig(Config):
    """Shape of the transformer."""

    architecture: Literal["classic", "2026"] = "classic"
    """`classic`: the model of October 2025; `2026`: that of July 2026 (`nanochat.model.architecture`)."""
    sequence_len: int = Field(default=2048, gt=0)
    """Training context in tokens."""
    vocab_size: int = Field(default=65536, gt=0)
    n_layer: int = Field(default=20, gt=0)
    n_head: int = Field(default=10, gt=0)
    n_kv_head: int = Field(default=10, gt=0)
    """Heads of keys and values; each serves n_head / n_kv_head heads of queries."""
    n_embd: int = Field(default=1280, gt=0)
    window_pattern: str | None = Field(
        default_factory=_default_window_pattern, exclude_if=lambda pattern: pattern is None
    )
    """Architecture `2026` only: reach of attention layer by layer, repeated (S: a quarter of the context,
    L: all of it; the last layer always has all)."""
    document_token: int | None = Field(default=None, ge=0, exclude_if=lambda token: token is None)
    """Token that begins a document and that no attention reaches back beyond; None: documents in a row see
    each other. Pretraining fills it in (`documents_apart`)."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _year_is_a_name(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value  # what YAML makes of 2026

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelConfig:
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd is {self.n_embd}, not a multiple of n_head ({self.n_head});"
                f" use {_multiples(self.n_embd, 2 * self.n_head)}"
            )
        head_dim = self.n_embd // self.n_head
        if head_dim % 2:
            raise ValueError(
                f"head dimension is {head_dim} (n_embd {self.n_embd} / n_head {self.n_head}); rotary"
                f" embeddings need an even one: use an n_embd of {_multiples(self.n_embd, 2 * self.n_head)}"
            )
        if self.n_head % self.n_kv_head:
            fitting = [str(heads) for heads in range(1, self.n_head + 1) if self.n_head % heads == 0]
            raise ValueError(
                f"n_head is {self.n_head}, not a multiple of n_kv_head ({self.n_kv_head});"
                f" n_kv_head can be {', '.join(fitting)}"
            )
        return self

    @model_validator(mode="after")
    def _architecture_fits(self) -> ModelConfig:
        if self.architecture == "classic":
            if self.window_pattern is not None:
                raise ValueError(
                    f"window_pattern is {self.window_pattern!r}, but architecture 'classic' has no windows;"
                    " leave it out (null) or use architecture '2026'"
                )
            return self
        if not self.window_pattern or set(self.window_pattern) - set("SL"):
            raise ValueError(
                f"window_pattern is {self.window_pattern!r}; it must be letters S (a quarter of the context)"
                " and L (all of it), such as SSSL"
            )
        if self.n_embd < SMEAR_CHANNELS:
            raise ValueError(
                f"n_embd is {self.n_embd}; architecture '2026' reads the first {SMEAR_CHANNELS} channels of"
                f" an embedding: use {SMEAR_CHANNELS} or more"
            )
        return self


def _multiples(value: int, of: int) -> str:
    below, above = value // of * of, (value // of + 1) * of
    return f"{below} or {above}" if below else str(above)


class OptimizerConfig(Config):
    """Learning rates before scaling by width: Muon for the block matrices, AdamW for the rest."""

    matrix_lr: float = Field(default=0.02, gt=0)
    """Muon, all matrices inside the blocks."""
    embedding_lr: float = Field(default=0.2, gt=0)
    """AdamW, token embedding; scaled by (n_embd / 768) ** -0.5."""
    unembedding_lr: float = Field(default=0.004, gt=0)
    """AdamW, output head; scaled likewise."""
    scalar_lr: float = Field(default=0.5, gt=0, exclude_if=lambda lr: lr == 0.5)
    """AdamW, architecture `2026` only: the factors of the embedding; a hundredth for those of the stream."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Architecture `classic`: AdamW's; `2026`: of the block matrices (AdamW's groups have their own)."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Largest global gradient norm; None: no clipping."""


class ComputeConfig(Config):
    """How training passes are computed: it changes the last digits of all numbers."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products and of activations between them; weights and sums stay float32."""
    compile: bool = False
    """Whether PyTorch compiles the passes: up to minutes before the first step, then quicker ones."""


_PLAIN = ComputeConfig()


class PretrainConfig(Config):
    """What is pretrained, on how many tokens."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = Field(default=_PLAIN, exclude_if=lambda compute: compute == _PLAIN)
    batch_tokens: int = Field(default=524_288, gt=0)
    """Tokens per optimizer step, all ranks together."""
    steps: int = Field(default=21_400, gt=0)
    warmup_steps: int = Field(default=0, ge=0, exclude_if=_is_empty)
    """First steps over which the learning rate rises linearly."""
    warmdown_ratio: float = Field(default=0.2, ge=0, le=1)
    """Last part of the run over which the learning rate falls linearly to `final_lr_frac` of its value."""
    final_lr_frac: float = Field(default=0.0, ge=0, le=1, exclude_if=_is_empty)
    """Where the learning rate ends."""
    eval_every: int = Field(default=250, gt=0)
    """Steps between two measurements of validation bits per byte."""
    eval_tokens: int = Field(default=20 * 524_288, gt=0)
    """Validation tokens read at most each time."""
    sample_every: int = Field(default=2000, gt=0)
    """Steps between two sets of sampled texts."""
    prompts: tuple[str, ...] = ()
    """What the samples continue."""
    seed: int = 1337
    documents_apart: bool = Field(default=False, exclude_if=lambda apart: not apart)
    """Whether documents that share a row are hidden from each other, here and in all later stages; in the
    published models they are not."""

    @model_validator(mode="after")
    def _batch_fits(self) -> PretrainConfig:
        _require_whole_rows("batch_tokens", self.batch_tokens, self.model.sequence_len)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, more than steps ({self.steps});"
                f" use {self.steps} or fewer"
            )
        return self


class MixtureEntry(Config):
    """One data set of a chat mixture."""

    task: str
    """Name of the data set: `arc_easy`, `arc_challenge`, `mmlu`, `gsm8k`, `humaneval`, `spelling`,
    `spelling_bee`, or the name of a file below `conversations/`."""
    split: str = "train"
    rows: int | None = Field(default=None, gt=0)
    """The first so many rows after shuffling; None: all."""
    repeat: int = Field(default=1, gt=0)
    """How often each row occurs in an epoch."""


class ChatDataConfig(Config):
    """Which conversations a chat stage is given, as tokens."""

    mixture: tuple[MixtureEntry, ...] = ()
    validation: tuple[MixtureEntry, ...] = Field(default=(), exclude_if=_is_empty)
    seed: int = 42
    """Decides the order of the mixture."""
    max_tokens: int = Field(default=2048, gt=0)
    """Where a conversation is cut off."""


class MidtrainConfig(Config):
    """Training on whole rendered conversations, every token counted."""

    mixture: tuple[MixtureEntry, ...] = ()
    """Data sets to mix; none: everything at `tasks.source` that is for training."""
    validation: tuple[MixtureEntry, ...] = Field(default=(), exclude_if=_is_empty)
    """Data sets to validate on; none: the last 2 % of the mixture (1 to 256 rows), which do not train."""
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = Field(default=_PLAIN, exclude_if=lambda compute: compute == _PLAIN)
    batch_tokens: int = Field(default=524_288, gt=0)
    """Tokens per optimizer step, all ranks together."""
    epochs: int = Field(default=1, gt=0)
    eval_every: int = Field(default=150, gt=0)
    sample_every: int = Field(default=1000, gt=0)
    prompts: tuple[str, ...] = ()
    """User messages that the samples answer."""
    seed: int = 42


class SftConfig(Config):
    """Training on answers only, one conversation a row."""

    mixture: tuple[MixtureEntry, ...] = ()
    """Data sets to mix; none: everything at `tasks.source` that is for training."""
    validation: tuple[MixtureEntry, ...] = Field(default=(), exclude_if=_is_empty)
    """Data sets to validate on; none: the last 2 % of the mixture (1 to 256 rows), which do not train."""
    optimizer: OptimizerConfig = OptimizerConfig(grad_clip=None)
    compute: ComputeConfig = Field(default=_PLAIN, exclude_if=lambda compute: compute == _PLAIN)
    init_lr_frac: float = Field(default=0.02, gt=0, le=1)
    """All learning rates start at this part of their value and fall linearly to zero."""
    batch_rows: int = Field(default=32, gt=0)
    """Conversations per optimizer step, all ranks together. An epoch has rows // batch_rows steps, each an
    update: 651 for the published 20,843 rows (upstream counts 651, but stops before the last update)."""
    epochs: int = Field(default=1, gt=0)
    eval_every: int = Field(default=100, gt=0)
    sample_every: int = Field(default=200, gt=0)
    prompts: tuple[str, ...] = ()
    """User messages that the samples answer."""
    seed: int = 42


class EvaluateConfig(Config):
    """Which benchmarks, on how many problems."""

    chat_tasks: tuple[str, ...] = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval")
    """Tasks of ChatCORE; missing data is an error."""
    core: bool = True
    """Whether to run the CORE bundle."""
    max_problems: int | None = Field(default=None, gt=0)
    """Problems per task at most, after a fixed shuffle; None: all."""
    core_max_problems: int | None = Field(default=500, gt=0)
    """Problems per CORE task at most."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest generated answer."""
    bpb_tokens: int = Field(default=20 * 524_288, gt=0)
    """Validation tokens for bits per byte."""
    prompts: tuple[str, ...] = ()
    """Prompts whose greedy continuations are kept with the results."""


class PublishConfig(Config):
    """How the result is presented."""

    title: str = "nanochat"
    license: str = "mit"
    datasets: tuple[str, ...] = ()
    """Names of the data sets for the model card's front matter."""


class ImportConfig(Config):
    """A published model from elsewhere: what it is, and apart from that where it is."""

    location_fields: ClassVar[frozenset[str]] = frozenset({"folder", "tag"})

    format: Literal["nanochat", "transformers"]
    """Whose published format the files are in."""
    step: int
    """Step of the checkpoint."""
    source: str | None = None
    """Which training made it (`sft`, `rl`, `mid`, `base`), where the folder says so."""
    files: tuple[SourceFile, ...]
    """Names of the files and, as versions, their sha256."""
    folder: str
    """Where the folder is; not part of the identity."""
    tag: str | None = None
    """Which of several models in the folder; not part of the identity."""


class Recipe(Config):
    """Everything one pipeline run produces, stage by stage."""

    name: str
    depth: int = Field(gt=0)
    """The dial: number of layers, from which the presets derive everything else."""
    corpus: CorpusConfig = CorpusConfig()
    tasks: TasksConfig = TasksConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    pretrain: PretrainConfig = PretrainConfig()
    midtrain: MidtrainConfig = MidtrainConfig()
    sft: SftConfig = SftConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    publish: PublishConfig = PublishConfig()

    @model_validator(mode="after")
    def _toy_worlds_agree(self) -> Recipe:
        if self.corpus.source == "toy" and self.tasks.toy and self.tasks.toy.seed != self.corpus.toy.seed:
            raise ValueError(
                f"tasks.toy.seed is {self.tasks.toy.seed} but corpus.toy.seed is {self.corpus.toy.seed};"
                " questions must be about the world of the documents: set both to the same number"
            )
        return self

    @model_validator(mode="after")
    def _midtrain_batch_fits(self) -> Recipe:
        length = self.pretrain.model.sequence_len
        _require_whole_rows("midtrain.batch_tokens", self.midtrain.batch_tokens, length)
        return self

    @model_validator(mode="after")
    def _vocabularies_agree(self) -> Recipe:
        if self.tokenizer.vocab_size != self.pretrain.model.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size is {self.tokenizer.vocab_size} but pretrain.model.vocab_size is"
                f" {self.pretrain.model.vocab_size}; set both to the same number"
            )
        return self
