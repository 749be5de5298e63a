"""The transformer of upstream nanochat in its two architectures, with their parameter names and numbers.

Untied head, no biases, no learned norms, rotary positions, relu^2 MLP, logits capped at +-15. `GPT` is what
both share; `Classic` (October 2025) and `July2026` differ in how the residual stream runs through the blocks,
and in the numbers of `nanochat.model.architecture`. It knows nothing of optimizers, training or text. A new
model has unset weights: `init_weights` or a checkpoint (`nanochat.model.checkpoint`) fills them.

Shapes: B rows, T positions, C = n_embd, K key/value heads, D head dimension, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.attention import document_starts
from kernels.embedding import embedding
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.products import linear
from kernels.relu_squared import relu_squared_mlp
from nanochat.config import IGNORED, SMEAR_CHANNELS, ModelConfig
from nanochat.model import flops
from nanochat.model.architecture import (
    ParameterKind,
    architecture_of,
    has_value_embedding,
    parameter_kind,
    vocabulary_rows,
    windows,
)
from nanochat.model.attention import Attention, Context, Linear, as_computed, gated, rms_norm, rotary_tables
from nanochat.model.init_weights import init_2026, init_classic
from nanochat.model.kv_cache import KVCache, Reading
from nanochat.model.mapped_memory import let_go
from nanochat.model.packed_rows import PackedRows
from nanochat.model.reproducible import set_strict

LOGIT_CAP = 15.0
_TABLE_FACTOR = 10  # rotary tables reach this many training contexts at first,
_TABLE_LENGTH = (
    32_768  # but not more positions: they grow when they are needed, and a file may name any context
)


class Embedding(nn.Embedding):
    """An embedding whose weights start out unset."""

    def reset_parameters(self) -> None:
        """Leave the weights alone, and with them the global random state."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ids (B, T) to (B, T, C)."""
        return embedding(input, self.weight)


class MLP(nn.Module):
    """Two linear maps around a squared relu."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc: nn.Module = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj: nn.Module = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        if isinstance(self.c_fc, Linear) and isinstance(self.c_proj, Linear):
            return relu_squared_mlp(as_computed(x), self.c_fc.weight, self.c_proj.weight)
        out: Tensor = self.c_proj(F.relu(self.c_fc(x)).square())
        return out


class Block(nn.Module):
    """Attention, then MLP, each on the normed residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context, value_embedding: Tensor | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attn(rms_norm(x), context, value_embedding)
        out: Tensor = x + self.mlp(rms_norm(x))
        return out


class Body(nn.Module):
    """Holds embedding and blocks, because upstream's parameter names require it; `GPT` runs them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = Embedding(vocabulary_rows(config), config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))


class GPT(nn.Module):
    """The whole model: `GPT(config)` makes an instance of the configured architecture's class."""

    cos: Tensor
    sin: Tensor
    precision: torch.dtype = torch.float32
    """Type of matrix products in `forward`, and of activations between them; weights stay float32."""

    def __new__(cls, config: ModelConfig | None = None) -> GPT:
        """Choose the class; without a configuration (when a model is copied) it is chosen already."""
        if cls is GPT and config is not None:
            return super().__new__(Classic if config.architecture == "classic" else July2026)
        return super().__new__(cls)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        set_strict()  # the tables below may be the first use of MKL in this process
        self.config = config
        self.windows = windows(config)
        self.transformer = Body(config)
        self.lm_head: nn.Module = Linear(config.n_embd, vocabulary_rows(config))
        self._set_tables(min(_TABLE_FACTOR * config.sequence_len, _TABLE_LENGTH))

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        device: torch.device = self.transformer.wte.weight.device
        return device

    @property
    def cache_dtype(self) -> torch.dtype:
        """Return the type of keys and values, in which a cache keeps them."""
        if self.precision != torch.float32 or not isinstance(self.lm_head, Linear):
            return self.precision
        return self.lm_head.weight.dtype

    def compute_in(self, dtype: torch.dtype) -> None:
        """Compute in a type from now on, without training: what is multiplied is turned into it once."""
        self.precision = dtype
        for parameter in self.parameters():
            if parameter.dim() > 1:  # factors of the residual stream stay as `precision` alone leaves them
                given = parameter.data
                parameter.data = given.to(dtype)
                if given.dtype != dtype:
                    let_go(given)

    def flops_per_token(self) -> int:
        """Return forward and backward operations per trained token."""
        return flops.flops_per_token(self.config)

    def parameter_groups(self) -> dict[ParameterKind, dict[str, nn.Parameter]]:
        """Return every parameter by its name, grouped by kind: an optimizer treats those of a kind alike.

        Kinds that the architecture lacks are left out. `matrices` are all parameters inside the blocks.
        """
        groups: dict[ParameterKind, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(parameter_kind(name), {})[name] = parameter
        return groups

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights anew from a CPU generator: the same weights on every device."""
        raise NotImplementedError

    def stream(self, x: Tensor, idx: Tensor, context: Context) -> Tensor:
        """Run normed embeddings x (B, T, C) of the tokens idx (B, T) through all blocks."""
        raise NotImplementedError

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        kv_cache: KVCache | None = None,
        loss_reduction: Literal["mean", "sum", "none"] = "mean",
        *,
        last_only: bool = False,
    ) -> Tensor:
        """Map token ids (B, T) to logits (B, T, V), or with targets (B, T) to their cross entropy in nats.

        Targets of -1 are left out; `none` returns (B, T). `last_only` computes the logits of the last
        position alone, (B, 1, V).
        """
        with self._autocast():
            x = self.hidden(idx, kv_cache)
            if targets is None:
                return self.logits(x[:, -1:] if last_only else x)
            return self._loss(x, targets, loss_reduction)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _loss(self, x: Tensor, targets: Tensor, reduction: Literal["mean", "sum", "none"]) -> Tensor:
        if not isinstance(self.lm_head, Linear):  # for inference: the logits of a text are not too many
            loss = F.cross_entropy(
                self._capped(x, None).flatten(0, 1),
                targets.flatten(),
                ignore_index=IGNORED,
                reduction=reduction,
            )
            return loss.view(targets.shape) if reduction == "none" else loss
        loss = linear_cross_entropy(
            as_computed(x).flatten(0, 1),
            self.lm_head.weight,
            targets.flatten(),
            softcap=LOGIT_CAP,
            ignore_index=IGNORED,
            reduction=reduction,
            valid_vocab=self.config.vocab_size,
        )
        return loss.view(targets.shape) if reduction == "none" else loss

    def hidden(self, idx: Tensor, kv_cache: KVCache | None = None) -> Tensor:
        """Map token ids (B, T) to the final normed activations (B, T, C)."""
        if kv_cache is not None:
            reading = kv_cache.reading(range(kv_cache.rows), idx.tolist())
            return self.hidden_read(reading).view(*idx.shape, -1)
        self._reach(idx.size(1))
        cos, sin = self.cos[:, : idx.size(1)], self.sin[:, : idx.size(1)]
        # The residual stream is in the type of the products, as upstream's is: float32 would double what its
        # additions and norms move.
        return rms_norm(self.stream(self.embedded(idx), idx, Context(cos, sin, self._document_starts(idx))))

    def hidden_packed(self, packed: PackedRows) -> Tensor:
        """Return the final normed activations (N, C) of rows packed into one."""
        context = Context(*self._turns(packed.positions, packed.longest), packed=packed)
        with self._autocast():
            return rms_norm(self.stream(self.embedded(packed.tokens), packed.tokens, context))[0]

    def hidden_read(self, reading: Reading) -> Tensor:
        """Return the final normed activations (N, C) of tokens that rows of a cache take in."""
        context = Context(*self._turns(reading.positions, reading.longest), reading=reading)
        with self._autocast():
            x = rms_norm(self.stream(self.embedded(reading.tokens), reading.tokens, context))[0]
        reading.done()
        return x

    def read(self, texts: Sequence[Sequence[int]], kv_cache: KVCache, rows: Sequence[int]) -> Tensor:
        """Read texts behind what rows of a cache hold; return the logits (R, V) after each."""
        reading = kv_cache.reading(rows, texts)
        return self.logits(self.hidden_read(reading)[reading.lasts])

    def embedded(self, tokens: Tensor) -> Tensor:
        """Return the normed embeddings (..., C) of tokens: what blocks, and the smear of 2026, start from."""
        return rms_norm(as_computed(self.transformer.wte(tokens)))

    def logits(self, x: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        """Map final activations (..., C) to capped logits (..., V) in float32, or to those of some tokens."""
        with self._autocast():
            return self._capped(x, tokens)

    def _capped(self, x: Tensor, tokens: Sequence[int] | None) -> Tensor:
        if tokens is not None and isinstance(self.lm_head, Linear):
            raw = linear(as_computed(x), self.lm_head.weight[list(tokens)])
        else:
            raw = self.lm_head(x)[..., : self.config.vocab_size]  # without the rows that pad the vocabulary
            raw = raw if tokens is None else raw[..., list(tokens)]
        return LOGIT_CAP * torch.tanh(raw.float() / LOGIT_CAP)

    def _document_starts(self, idx: Tensor) -> Tensor | None:
        token = self.config.document_token
        return None if token is None else document_starts(idx == token)

    def _turns(self, positions: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Return cos and sin at some positions, all before an end."""
        self._reach(end)
        return self.cos[:, positions], self.sin[:, positions]

    def _reach(self, end: int) -> None:
        if end > self.cos.size(1):
            self._set_tables(2 * end)

    def _set_tables(self, length: int) -> None:
        head_dim = self.config.n_embd // self.config.n_head
        # A text that training shows may need longer tables; those made for inference cannot be trained with.
        with torch.inference_mode(False):
            cos, sin = rotary_tables(architecture_of(self.config), length, head_dim, self.device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)


class Classic(GPT):
    """The architecture of October 2025: blocks one after the other."""

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights anew from a CPU generator: the same weights on every device."""
        init_classic(self, generator)

    def stream(self, x: Tensor, idx: Tensor, context: Context) -> Tensor:
        """Run normed embeddings x (B, T, C) through all blocks."""
        for block in self.transformer.h:
            x = block(x, context)
        return x


class July2026(GPT):
    """The architecture of July 2026.

    The previous token's embedding is smeared into each; every block starts from the stream scaled and some of
    the embedding; every other layer mixes an embedding of the token into its values; at the end, some of
    what the middle block left is taken out again.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        kv_width = config.n_kv_head * (config.n_embd // config.n_head)
        self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer))
        self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer))
        self.smear_gate = Linear(SMEAR_CHANNELS, 1)
        self.smear_lambda = nn.Parameter(torch.empty(1))
        self.backout_lambda = nn.Parameter(torch.empty(1))
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): Embedding(vocabulary_rows(config), kv_width)
                for layer in range(config.n_layer)
                if has_value_embedding(config, layer)
            }
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights anew from a CPU generator: the same weights on every device."""
        init_2026(self, self.config, generator)

    def stream(self, x: Tensor, idx: Tensor, context: Context) -> Tensor:
        """Run normed embeddings x (B, T, C) of the tokens idx (B, T) through all blocks."""
        x = start = middle = self._smear(x, context)
        for layer, block in enumerate(self.transformer.h):
            x = _scaled(x, self.resid_lambdas[layer]) + _scaled(start, self.x0_lambdas[layer])
            name = str(layer)
            x = block(x, context, self.value_embeds[name](idx) if name in self.value_embeds else None)
            if layer == self.config.n_layer // 2:
                middle = x
        return x - _scaled(middle, self.backout_lambda.to(x.dtype))

    def _smear(self, x: Tensor, context: Context) -> Tensor:
        # What came before each token: zeros, and so no change, before a document's first.
        if context.reading is not None:
            before = context.reading.before(x, self.embedded)
        elif context.packed is not None:
            before = context.packed.before(x)
        else:
            before = F.pad(x[:, :-1], (0, 0, 1, 0))
        if context.starts is not None:
            positions = torch.arange(x.size(1), device=x.device)
            before = before * (context.starts < positions)[..., None]
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(
            gated(self.smear_gate, x[..., :SMEAR_CHANNELS], context)
        )
        return x + gate * before


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    """Return x (B, T, C) times one number.

    Its gradient adds up by channel first: a sum of all elements at once is cut by the number of threads.
    """
    return (factor.expand(x.size(-1)) * x).to(x.dtype)
