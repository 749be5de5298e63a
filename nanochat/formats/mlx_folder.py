"""The folder that mlx-lm loads on a Mac: that of transformers, with tensors under upstream's names.

MLX has the classic architecture alone, and its norm has an eps of 1e-5 whatever `config.json` says. Such a
folder is read back as one of transformers. mlx itself is not needed.
"""

from __future__ import annotations

from pathlib import Path

from nanochat.errors import ConfigError
from nanochat.formats.published import Published
from nanochat.formats.transformers_folder import write_transformers_folder
from nanochat.formats.transformers_form import MLX_FORM


def write_mlx_folder(out: Path, published: Published) -> None:
    """Write the folder; raises ConfigError for an architecture that MLX does not have."""
    architecture = published.model.config.architecture
    if architecture != "classic":
        raise ConfigError(
            f"the model is of architecture {architecture!r}, which MLX does not have",
            hint="--format transformers carries code for it, and `nanochat chat` and `nanochat serve` run it",
        )
    write_transformers_folder(out, published, MLX_FORM)
