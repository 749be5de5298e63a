"""The shape of the transformer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nanochat.config.base import Config, multiples

# Channels of an embedding that decide how much of the previous token is mixed in (architecture 2026).
SMEAR_CHANNELS = 24
IGNORED = -1
"""A target that the loss ignores."""


class ModelConfig(Config):
    """Shape of the transformer."""

    architecture: Literal["classic", "2026"] = "classic"
    """`classic`: the model of October 2025; `2026`: that of July 2026 (`nanochat.model.architecture`)."""
    sequence_len: int = Field(default=2048, gt=0)
    """Training context in tokens."""
    vocab_size: int = Field(default=65536, gt=0)
    """Number of token ids; the same as `tokenizer.vocab_size`."""
    n_layer: int = Field(default=20, gt=0)
    """Blocks of attention and MLP."""
    n_head: int = Field(default=10, gt=0)
    """Query heads."""
    n_kv_head: int = Field(default=10, gt=0)
    """Key and value heads; each serves n_head / n_kv_head query heads."""
    n_embd: int = Field(default=1280, gt=0)
    """Channels of the residual stream; a multiple of n_head."""
    window_pattern: str | None = Field(default=None, validate_default=True)
    """Architecture `2026` only: reach of attention layer by layer, repeated (S: a quarter of the context,
    L: all of it; the last layer is always L). None means SSSL there."""
    document_token: int | None = Field(default=None, ge=0)
    """Token that begins a document, and that attention does not reach back past; None: documents in a row
    attend to each other. Pretraining fills it in (`documents_apart`)."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _year_is_a_name(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value  # what YAML makes of 2026

    @field_validator("window_pattern")
    @classmethod
    def _has_windows_in_2026(cls, value: str | None, info: ValidationInfo) -> str | None:
        return "SSSL" if value is None and info.data.get("architecture") == "2026" else value

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelConfig:
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd is {self.n_embd}, not a multiple of n_head ({self.n_head});"
                f" use {multiples(self.n_embd, 2 * self.n_head)}"
            )
        head_dim = self.n_embd // self.n_head
        if head_dim % 2:
            raise ValueError(
                f"head dimension is {head_dim} (n_embd {self.n_embd} / n_head {self.n_head}); rotary"
                f" embeddings need an even one: use an n_embd of {multiples(self.n_embd, 2 * self.n_head)}"
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
