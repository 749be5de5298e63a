"""What is produced: the frozen, validated configuration of every stage.

Every field here is part of a result's identity and is hashed into its key, except the `location_fields` of a
class (where bytes come from, not what they are). Where and how fast things run is `nanochat.runtime`. The
docstring below a field is its help text. Of our other packages this one imports only what knows
credentials.
"""

from __future__ import annotations

from nanochat.config.base import Config
from nanochat.config.card import CardConfig, CitationConfig
from nanochat.config.data import (
    TOKEN_SHARD_FORMAT,
    ChatDataConfig,
    ContaminationConfig,
    CorpusConfig,
    MixtureEntry,
    OverlapConfig,
    ShardConfig,
    SourceFile,
    TasksConfig,
    TokenizeConfig,
    TokenizerConfig,
    ToyWorldConfig,
    bytes_per_token,
)
from nanochat.config.model import IGNORED, SMEAR_CHANNELS, ModelConfig
from nanochat.config.recipe import EvaluateConfig, ImportConfig, PublishConfig, Recipe
from nanochat.config.sampling import Sampling
from nanochat.config.training import (
    ComputeConfig,
    MidtrainConfig,
    OptimizerConfig,
    PretrainConfig,
    SftConfig,
    held_out_rows,
    learning_rates,
)

__all__ = [
    "IGNORED",
    "SMEAR_CHANNELS",
    "TOKEN_SHARD_FORMAT",
    "CardConfig",
    "ChatDataConfig",
    "CitationConfig",
    "ComputeConfig",
    "Config",
    "ContaminationConfig",
    "CorpusConfig",
    "EvaluateConfig",
    "ImportConfig",
    "MidtrainConfig",
    "MixtureEntry",
    "ModelConfig",
    "OptimizerConfig",
    "OverlapConfig",
    "PretrainConfig",
    "PublishConfig",
    "Recipe",
    "Sampling",
    "SftConfig",
    "ShardConfig",
    "SourceFile",
    "TasksConfig",
    "TokenizeConfig",
    "TokenizerConfig",
    "ToyWorldConfig",
    "bytes_per_token",
    "held_out_rows",
    "learning_rates",
]
