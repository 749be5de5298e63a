"""The nanochat model of July 2026 for transformers: `AutoModelForCausalLM` with `trust_remote_code=True`.

A causal transformer with rotary positions, normed queries and keys, windows of attention, squared relu, and
logits capped at +-15. The embedding of the token before is smeared into each; every block starts from the
stream scaled and some of the embedding; every other layer mixes an embedding of the token into its values; at
the end some of what the middle block left is taken out again.

Beside keys and values of its layers, the cache holds the embeddings that were read, as one layer more: that
is where the first token of the next call finds the one before. So the cache must be one that grows
(`DynamicCache`, as `generate` makes it). Attention is PyTorch's; its weights are not returned.

Shapes: B rows, T positions, S positions attended to, H heads, K key/value heads, D head dimension, C
channels.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from nanochat.formats.transformers_2026.configuration_nanochat2026 import Nanochat2026Config

ROPE_BASE = 100_000.0
RMS_EPS = 1.1920929e-07
QK_SCALE = 1.2  # of queries and of keys, after their norm
LOGIT_CAP = 15.0
SMEAR_CHANNELS = 24  # of an embedding, which decide how much of the one before is mixed in
VALUE_GATE_CHANNELS = 12  # of a block's input, which decide how much value embedding is mixed in
VOCAB_MULTIPLE = 64  # embeddings and head have rows to a multiple of this
WINDOW_STEP = 128  # short windows are a multiple of this

# Since version 5 `generate` calls the cache by another name.
_CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to unit root mean square."""
    return F.rms_norm(x, (x.size(-1),), eps=RMS_EPS)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of x (B, T, H, D) against each other by minus theta, norm and scale."""
    a, b = x.float().chunk(2, dim=-1)
    both = torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
    return QK_SCALE * rms_norm(both).to(x.dtype)


def padded_vocabulary(config: Nanochat2026Config) -> int:
    """Return the rows of embeddings and head."""
    return -(-config.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def has_value_embedding(config: Nanochat2026Config, layer: int) -> bool:
    """Return whether a layer has one: every other, and the last."""
    return layer % 2 == (config.num_hidden_layers - 1) % 2


def layer_window(config: Nanochat2026Config, layer: int) -> int:
    """Return how many positions before its own a query of a layer sees; the last layer sees the context."""
    pattern, whole = config.window_pattern, config.max_position_embeddings
    if layer == config.num_hidden_layers - 1 or pattern[layer % len(pattern)] == "L":
        return whole
    return -(-whole // (4 * WINDOW_STEP)) * WINDOW_STEP


class Nanochat2026Attention(nn.Module):
    """One layer's attention."""

    def __init__(self, config: Nanochat2026Config, layer: int) -> None:
        super().__init__()
        width, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.layer = layer
        self.head_dim = width // heads
        self.sharing = heads // kv_heads
        self.c_q = nn.Linear(width, width, bias=False)
        self.c_k = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.c_v = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        if has_value_embedding(config, layer):
            self.ve_gate = nn.Linear(VALUE_GATE_CHANNELS, kv_heads, bias=False)

    def forward(
        self,
        x: Tensor,
        turns: tuple[Tensor, Tensor],
        seen: Tensor,
        value_embedding: Tensor | None,
        cache: Any,
    ) -> Tensor:
        """Map normed activations (B, T, C) to (B, T, C); `seen` (B, 1, T, S) says what a query sees."""
        shape = (*x.shape[:2], -1, self.head_dim)
        q, k = (turned(project(x).view(shape), *turns) for project in (self.c_q, self.c_k))
        v = self.c_v(x).view(shape)
        if value_embedding is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :VALUE_GATE_CHANNELS]))  # (B, T, K)
            v = v + gate[..., None] * value_embedding.view_as(v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        if self.sharing > 1:
            k, v = k.repeat_interleave(self.sharing, dim=1), v.repeat_interleave(self.sharing, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(x.shape))
        return out


class Nanochat2026MLP(nn.Module):
    """Two linear maps around a squared relu."""

    def __init__(self, config: Nanochat2026Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, 4 * config.hidden_size, bias=False)
        self.c_proj = nn.Linear(4 * config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(F.relu(self.c_fc(x)).square())
        return out


class Nanochat2026Block(GradientCheckpointingLayer):
    """Attention, then MLP, each on the normed stream."""

    def __init__(self, config: Nanochat2026Config, layer: int) -> None:
        super().__init__()
        self.attn = Nanochat2026Attention(config, layer)
        self.mlp = Nanochat2026MLP(config)

    def forward(
        self,
        x: Tensor,
        turns: tuple[Tensor, Tensor],
        seen: Tensor,
        value_embedding: Tensor | None,
        cache: Any,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attn(rms_norm(x), turns, seen, value_embedding, cache)
        out: Tensor = x + self.mlp(rms_norm(x))
        return out


class Nanochat2026PreTrainedModel(PreTrainedModel):
    """What transformers asks about the model and its head."""

    config_class = Nanochat2026Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Nanochat2026Block"]  # noqa: RUF012  # transformers' own form
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Draw what no file holds: for training from scratch, as transformers draws any model's."""
        super()._init_weights(module)
        if isinstance(module, Nanochat2026Model):
            nn.init.ones_(module.resid_lambdas)
            nn.init.constant_(module.x0_lambdas, 0.1)
            nn.init.zeros_(module.smear_lambda)
            nn.init.constant_(module.backout_lambda, 0.2)

    def resize_token_embeddings(self, *_: Any, **__: Any) -> nn.Embedding:
        """Refuse: layers have embeddings of their own for each token, which would not grow."""
        raise NotImplementedError("a nanochat model's vocabulary is fixed: layers embed each token as well")


class Nanochat2026Model(Nanochat2026PreTrainedModel):
    """Embedding and blocks, without the head."""

    def __init__(self, config: Nanochat2026Config) -> None:
        super().__init__(config)
        layers, rows = config.num_hidden_layers, padded_vocabulary(config)
        kv_width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
        self.wte = nn.Embedding(rows, config.hidden_size)
        self.h = nn.ModuleList(Nanochat2026Block(config, layer) for layer in range(layers))
        self.resid_lambdas = nn.Parameter(torch.ones(layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(layers))
        self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): nn.Embedding(rows, kv_width)
                for layer in range(layers)
                if has_value_embedding(config, layer)
            }
        )
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of embeddings."""
        return self.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of embeddings."""
        self.wte = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Any:
        """Map token ids (B, T) behind what the cache holds to the final normed activations (B, T, C).

        `attention_mask` (B, S) is 0 where a row is padded, in the cache and behind it.
        """
        if input_ids is None:
            raise ValueError("a nanochat model reads input_ids: its layers embed the tokens themselves")
        cache = self._usable(past_key_values if cache is None else cache, use_cache)
        past = 0 if cache is None else cache.get_seq_length()
        if position_ids is None:
            position_ids = torch.arange(past, past + input_ids.size(1), device=input_ids.device)[None]
        padding = _padding(attention_mask, input_ids, past)
        start, begins = self._smeared(input_ids, padding[:, past:], past, cache)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        kept: list[Tensor] | None = [start] if wanted else None
        seen = _seen(padding, begins, past)
        x = rms_norm(self._stream(start, input_ids, self._turns(position_ids), seen, cache, kept))
        states = (*kept[:-1], x) if kept else None
        out = BaseModelOutputWithPast(last_hidden_state=x, hidden_states=states, **{_CACHE: cache})
        return out.to_tuple() if return_dict is False else out

    def _usable(self, cache: Any, use_cache: bool | None) -> Any:
        """Return the given cache or a new one, with room for the embeddings; None: do without."""
        if self.gradient_checkpointing and self.training:
            return None  # blocks run twice
        layers = self.config.num_hidden_layers
        if cache is None:
            wanted = self.config.use_cache and not self.training if use_cache is None else use_cache
            return DynamicCache() if wanted else None
        held = cache.layers
        if any(not isinstance(layer, DynamicLayer) or layer.is_sliding for layer in held):
            raise ValueError(f"{type(cache).__name__} cannot hold a nanochat model's past: use DynamicCache")
        if len(held) == layers:
            held.append(DynamicLayer())
        return cache

    def _smeared(self, ids: Tensor, real: Tensor, past: int, cache: Any) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, T, C), each with some of the one before, and where documents begin (B, S).

        Before the first token of a document, and behind padding, is nothing.
        """
        x = rms_norm(self.wte(ids))
        known, token = x * real[..., None], self.config.document_token_id
        begins = torch.zeros_like(ids, dtype=x.dtype) if token is None else (ids == token).to(x.dtype)
        before = F.pad(known[:, :-1], (0, 0, 1, 0)) * (1 - begins)[..., None]
        if cache is not None:
            held, flags = cache.update(
                known[:, None], begins[:, None, :, None], self.config.num_hidden_layers
            )
            if past:
                first = held[:, 0, past - 1] * (1 - begins[:, :1])  # (B, C)
                before = torch.cat((first[:, None], before[:, 1:]), dim=1)
            begins = flags[:, 0, :, 0]
        gate = self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return x + gate * before, begins

    def _stream(
        self,
        start: Tensor,
        ids: Tensor,
        turns: tuple[Tensor, Tensor],
        seen: Tensor,
        cache: Any,
        kept: list[Tensor] | None,
    ) -> Tensor:
        """Return what the blocks make of embeddings (B, T, C); keep what each leaves where that is wanted."""
        config = self.config
        windows = [layer_window(config, layer) for layer in range(config.num_hidden_layers)]
        masks = {window: _within(seen, window) for window in set(windows)}
        x = middle = start
        for layer, block in enumerate(self.h):
            x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * start
            name = str(layer)
            embedding = self.value_embeds[name](ids) if name in self.value_embeds else None
            x = block(x, turns, masks[windows[layer]], embedding, cache)
            middle = x if layer == config.num_hidden_layers // 2 else middle
            if kept is not None:
                kept.append(x)
        return x - self.backout_lambda * middle

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin (B or 1, T, 1, D / 2) at positions, in float32."""
        width = self.config.hidden_size // self.config.num_attention_heads
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
        angles = positions[..., None, None].float() * (1.0 / ROPE_BASE**exponents)
        return angles.cos(), angles.sin()


def _padding(mask: Tensor | None, ids: Tensor, past: int) -> Tensor:
    """Return which of the tokens (B, S) held and new ones are real."""
    shape = (ids.size(0), past + ids.size(1))
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=ids.device)
    if mask.shape != shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}, for tokens held and new {shape}")
    return mask.bool()


def _seen(real: Tensor, begins: Tensor, past: int) -> Tensor:
    """Return which tokens a query sees whatever its window, (B, 1, T, S): real ones of its own document."""
    document = begins.float().cumsum(dim=1)
    return (real[:, None] & (document[:, past:, None] == document[:, None]))[:, None]


def _within(seen: Tensor, window: int) -> Tensor:
    """Return which tokens a query sees, (B, 1, T, S): itself always, so that padding makes no NaN."""
    length, held = seen.shape[-2:]
    keys = torch.arange(held, device=seen.device)
    back = keys[held - length :, None] - keys  # (T, S)
    return (seen & (back > 0) & (back <= window)) | (back == 0)


class Nanochat2026ForCausalLM(Nanochat2026PreTrainedModel, GenerationMixin):
    """The whole model."""

    def __init__(self, config: Nanochat2026Config) -> None:
        super().__init__(config)
        self.model = Nanochat2026Model(config)
        self.lm_head = nn.Linear(config.hidden_size, padded_vocabulary(config), bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> Any:
        """Map token ids (B, T) to logits (B, T, V) in float32, or those of the last `logits_to_keep`.

        With labels (B, T), of which -100 is left out, also to the mean loss of predicting each label.
        """
        read = self.model(
            input_ids,
            attention_mask,
            position_ids,
            cache,
            past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        raw = self.lm_head(read.last_hidden_state[:, kept])[..., : self.config.vocab_size]
        logits = LOGIT_CAP * torch.tanh(raw.float() / LOGIT_CAP)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **others)
        out = CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=read.hidden_states, **{_CACHE: getattr(read, _CACHE)}
        )
        return out.to_tuple() if return_dict is False else out
