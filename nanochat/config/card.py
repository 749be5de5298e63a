"""What a model card says that no record knows: who made the model, what for, and how to cite it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nanochat.config.base import Config

Url = Annotated[str, Field(pattern=r"^https?://[^\s<>()\[\]]+$", max_length=500)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")]
HubName = Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+)?$", max_length=200)]


class CitationConfig(Config):
    """How the model is cited: by default as the program whose recipe it follows."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z][\w:.-]*$")] = "nanochat2025"
    """Name of the BibTeX entry."""
    author: str = "Karpathy, Andrej"
    """Authors as BibTeX writes them, joined by `and`."""
    title: str = "nanochat"
    """Title of the work."""
    year: Annotated[str, Field(pattern=r"^\d{4}$")] = "2025"
    """Year of the work."""


class CardConfig(Config):
    """What the model card says beside what the records know; what is empty is left out."""

    summary: str = ""
    """A sentence or two below the title."""
    developed_by: str = ""
    """Who designed the model and its recipe."""
    trained_by: str = ""
    """Who ran the training."""
    author: str = ""
    """Who answers for the card."""
    languages: tuple[Language, ...] = Field(default=("en",), min_length=1)
    """Languages of the training text, as ISO 639 codes."""
    base_model: HubName = ""
    """The model on the hub that training began from, as owner/name, if it was not trained from nothing."""
    corpus: str = ""
    """The pretraining text in words, such as `a 100B-token part of FineWeb-EDU`."""
    infrastructure: str = ""
    """Where the machines were, such as the name of a cloud."""
    repository: Url = "https://github.com/karpathy/nanochat"
    """The program and recipe."""
    links: tuple[Url, ...] = ()
    """Pages about the model, or where it can be tried."""
    uses: tuple[str, ...] = ()
    """What it is for, in place of what holds for any small chat model."""
    downstream_uses: tuple[str, ...] = ()
    """What may be made of it, in place of the same."""
    out_of_scope_uses: tuple[str, ...] = ()
    """What it is not for, in place of the same."""
    limitations: tuple[str, ...] = ()
    """Limitations, beside those that follow from its size and data."""
    citation: CitationConfig = CitationConfig()
    """How it is cited."""
