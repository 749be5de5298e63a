"""The shape of a nanochat model of July 2026, as `config.json` holds it.

All that the architecture leaves no choice about is in `modeling_nanochat2026.py`.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class Nanochat2026Config(PretrainedConfig):
    """The shape of the transformer."""

    model_type = "nanochat_2026"

    def __init__(
        self,
        *,
        vocab_size: int = 32768,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 6,
        num_key_value_heads: int = 6,
        max_position_embeddings: int = 2048,
        window_pattern: str = "SSSL",
        document_token_id: int | None = None,
        use_cache: bool = True,
        **others: Any,
    ) -> None:
        """Take the shape.

        `window_pattern` is the reach of attention layer by layer, repeated (S: a quarter of the context, L:
        all of it). A text's tokens do not see past the `document_token_id` before them.
        """
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.max_position_embeddings = max_position_embeddings
        self.window_pattern = window_pattern
        self.document_token_id = document_token_id
        self.use_cache = use_cache
        super().__init__(**{"tie_word_embeddings": False, **others})
