"""How a model is scored, published or imported, and the recipe: all of one pipeline run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nanochat.config.base import Config, require_whole_rows
from nanochat.config.card import CardConfig
from nanochat.config.data import (
    ContaminationConfig,
    CorpusConfig,
    SourceFile,
    TasksConfig,
    TokenizeConfig,
    TokenizerConfig,
)
from nanochat.config.model import ModelConfig
from nanochat.config.names import Name
from nanochat.config.training import MidtrainConfig, PretrainConfig, SftConfig, TrainingConfig


class EvaluateConfig(Config):
    """Which benchmarks, on how many problems."""

    chat_tasks: tuple[Name, ...] = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval")
    """Chat tasks; missing data is an error."""
    core: bool = True
    """Whether to run the CORE bundle."""
    max_problems: int | None = Field(default=None, gt=0)
    """Maximum problems per chat task, upstream's subset; None: all, as ChatCORE asks."""
    core_max_problems: int | None = Field(default=None, gt=0)
    """Maximum items per CORE task; None: all, as CORE asks."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest generated answer."""
    num_samples: int = Field(default=1, ge=1, le=1000)
    """Answers drawn to each problem whose answer is written; more than one needs a temperature."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 takes the likeliest token; above, each sample is drawn by seed, problem and its own number."""
    top_k: int | None = Field(default=50, gt=0)
    """Draw among this many tokens; None: all."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """What the draws begin with."""
    bpb_tokens: int = Field(default=20 * 524_288, gt=0)
    """Validation tokens for bits per byte."""
    prompts: tuple[str, ...] = ()
    """Prompts whose greedy continuations are kept with the results."""
    allow_unsafe_code: bool = False
    """Run model-written code even where it cannot be jailed."""

    @model_validator(mode="after")
    def _samples_differ(self) -> EvaluateConfig:
        if self.num_samples > 1 and not self.temperature:
            raise ValueError(
                f"num_samples is {self.num_samples} at temperature 0, where all samples are alike;"
                " set temperature, such as 0.8, or num_samples to 1"
            )
        return self


class PublishConfig(Config):
    """How the result is presented."""

    title: str = "nanochat"
    """Title of the model card."""
    license: str = "mit"
    """Licence of the model, for the card's front matter."""
    datasets: tuple[str, ...] = ()
    """Names of the data sets for the model card; those that are on the hub are in its front matter."""
    card: CardConfig = CardConfig()
    """What else the model card says."""


class ImportConfig(Config):
    """A published model from elsewhere: what it is, and separately where it is."""

    location_fields: ClassVar[frozenset[str]] = frozenset({"folder", "tag"})

    format: Literal["nanochat", "transformers"]
    """Whose published format the files are in."""
    step: int
    """Step of the checkpoint."""
    source: str | None = None
    """Which training stage made it (`sft`, `rl`, `mid`, `base`), if the folder says so."""
    files: tuple[SourceFile, ...]
    """Names of the files and, as versions, their sha256."""
    folder: str
    """Where the folder is; not part of the identity."""
    tag: str | None = None
    """Which of several models in the folder; not part of the identity."""


class Recipe(Config):
    """Everything one pipeline run produces, stage by stage."""

    name: Name
    """Name of the recipe, of letters, digits, `.`, `_` and `-`; results are kept and unpacked under it."""
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

    @property
    def model(self) -> ModelConfig:
        """The shape of the model, which every training keeps."""
        return self.pretrain.model

    @property
    def training(self) -> dict[str, TrainingConfig]:
        """The sections that train the model, by the name of their stage, in the order of training."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, TrainingConfig)}

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
        require_whole_rows("midtrain.batch_tokens", self.midtrain.batch_tokens, length)
        return self

    @model_validator(mode="after")
    def _vocabularies_agree(self) -> Recipe:
        if self.tokenizer.vocab_size != self.pretrain.model.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size is {self.tokenizer.vocab_size} but pretrain.model.vocab_size is"
                f" {self.pretrain.model.vocab_size}; set both to the same number"
            )
        return self
