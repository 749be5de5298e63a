# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "tiktoken", "torch"]
# ///
"""Answers a prompt with the model in this folder, on a CPU, without the program that trained it.

    uv run generate_cpu.py --prompt "Why is the sky blue?"

Both architectures, in float32, with the calculator. With the same settings the answer is the one of
`nanochat chat FOLDER --weights float32 -p PROMPT`. Nothing in the folder is run: the tokenizer's pickle may
name tiktoken's Encoding alone, of which the tables are taken, and PyTorch reads weights as plain tensors.
"""

from __future__ import annotations

import argparse
import codecs
import json
import math
import pickle
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.nn import functional as F

from nanochat.chat.calculator import calculate
from nanochat.printable import printable

EPS = 1.1920929e-07  # of the norms
LOGIT_CAP = 15.0
SMEAR_CHANNELS, GATE_CHANNELS = 24, 12  # of architecture 2026
SPECIAL = (
    *("bos", "user_start", "user_end", "assistant_start", "assistant_end"),
    *("python_start", "python_end", "output_start", "output_end"),
)
KINDS = {
    "<|python_start|>": "expression",
    "<|python_end|>": "text",
    "<|output_start|>": "result",
    "<|output_end|>": "text",
}
BETWEEN = {("text", "expression"): "[", ("result", "text"): "] ", ("result", "expression"): "] ["}
BETWEEN |= {(before, "result"): " = " for before in ("expression", "text")}


class TokenizerTables:
    """Stands in for tiktoken's Encoding and keeps what is pickled of it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep the state as it is."""
        self.state = state


class TokenizerUnpickler(pickle.Unpickler):
    """Reads a pickle that names nothing but tiktoken's Encoding."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in; raise UnpicklingError for every other name."""
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise pickle.UnpicklingError(f"tokenizer.pkl asks for {module}.{name}, which is not run")
        return TokenizerTables


def read_tokenizer(path: Path) -> tiktoken.Encoding:
    """Return the tokenizer of a `tokenizer.pkl`."""
    with path.open("rb") as file:
        tables = TokenizerUnpickler(file).load().state
    names = ("pat_str", "mergeable_ranks", "special_tokens")
    return tiktoken.Encoding("nanochat", **{name: tables[name] for name in names})


class GrowingText:
    """The transformer, for one text that grows: keys and values of what was read are kept."""

    def __init__(self, folder: Path) -> None:
        """Read the newest `model_*.pt` of a folder, with its `meta_*.json`."""
        path = max(folder.glob("model_*.pt"), default=None)
        if path is None:
            raise SystemExit(f"{folder} has no model_*.pt: name the published folder with --model-dir")
        meta = path.with_name(path.name.replace("model_", "meta_")).with_suffix(".json")
        self.shape: dict[str, Any] = json.loads(meta.read_text(encoding="utf-8"))["model_config"]
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        self.weights = {name.removeprefix("_orig_mod."): w.float() for name, w in weights.items()}
        self.is_2026 = "resid_lambdas" in self.weights
        self.head_dim = self.shape["n_embd"] // self.shape["n_head"]
        self.cache: list[tuple[Tensor, Tensor]] = []  # of each layer, (K, S, D) each
        self.last = torch.zeros(1, self.shape["n_embd"])  # embedding of the token before

    def read(self, tokens: list[int]) -> Tensor:
        """Read tokens behind what was read before; return the logits (V,) after the last."""
        weights, ids = self.weights, torch.tensor(tokens)
        x = rms_norm(weights["transformer.wte.weight"][ids])  # (T, C)
        if self.is_2026:
            x = self._smeared(x)
        start = middle = x
        for layer in range(self.shape["n_layer"]):
            if self.is_2026:
                x = weights["resid_lambdas"][layer] * x + weights["x0_lambdas"][layer] * start
            x = x + self._attention(layer, rms_norm(x), ids)
            up = F.linear(rms_norm(x), weights[f"transformer.h.{layer}.mlp.c_fc.weight"])
            x = x + F.linear(F.relu(up).square(), weights[f"transformer.h.{layer}.mlp.c_proj.weight"])
            middle = x if layer == self.shape["n_layer"] // 2 else middle
        if self.is_2026:
            x = x - weights["backout_lambda"] * middle
        logits: Tensor = F.linear(rms_norm(x[-1]), weights["lm_head.weight"])[: self.shape["vocab_size"]]
        capped: Tensor = LOGIT_CAP * torch.tanh(logits / LOGIT_CAP)
        return capped

    def _smeared(self, x: Tensor) -> Tensor:
        """Mix the embedding of the token before into each."""
        before = torch.cat((self.last, x[:-1]))
        self.last = x[-1:]
        gate = F.linear(x[:, :SMEAR_CHANNELS], self.weights["smear_gate.weight"])
        mixed: Tensor = x + self.weights["smear_lambda"] * torch.sigmoid(gate) * before
        return mixed

    def _attention(self, layer: int, x: Tensor, ids: Tensor) -> Tensor:
        prefix = f"transformer.h.{layer}.attn"
        q, k, v = (
            F.linear(x, self.weights[f"{prefix}.c_{name}.weight"]).view(len(x), -1, self.head_dim)
            for name in "qkv"
        )  # (T, H or K, D)
        table = self.weights.get(f"value_embeds.{layer}.weight")
        if table is not None:
            gate = 3 * torch.sigmoid(F.linear(x[:, :GATE_CHANNELS], self.weights[f"{prefix}.ve_gate.weight"]))
            v = v + gate[..., None] * table[ids].view_as(v)
        held = self.cache[layer][0].size(1) if layer < len(self.cache) else 0
        q, k = self._turned(q, held), self._turned(k, held)
        k, v = k.transpose(0, 1), v.transpose(0, 1)
        if held:
            k, v = (torch.cat(pair, dim=1) for pair in zip(self.cache[layer], (k, v), strict=True))
            self.cache[layer] = (k, v)
        else:
            self.cache.append((k, v))
        sharing = self.shape["n_head"] // k.size(0)
        keys, values = k.repeat_interleave(sharing, dim=0), v.repeat_interleave(sharing, dim=0)
        scores = q.transpose(0, 1) @ keys.transpose(1, 2) / math.sqrt(self.head_dim)  # (H, T, S)
        back = torch.arange(held, held + len(x))[:, None] - torch.arange(k.size(1))
        hidden = (back < 0) | (back > self._window(layer))
        shares = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        return F.linear((shares @ values).transpose(0, 1).flatten(1), self.weights[f"{prefix}.c_proj.weight"])

    def _turned(self, x: Tensor, first: int) -> Tensor:
        """Rotate by position, by minus theta, then norm."""
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        positions = torch.arange(first, first + len(x), dtype=torch.float32)
        angles = torch.outer(positions, 1.0 / ((100_000.0 if self.is_2026 else 10_000.0) ** exponents))
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        if not self.is_2026:
            cos, sin = cos.bfloat16().float(), sin.bfloat16().float()
        a, b = x.chunk(2, dim=-1)
        turned = rms_norm(torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1))
        return 1.2 * turned if self.is_2026 else turned

    def _window(self, layer: int) -> int:
        """Return how many positions before its own a query sees."""
        pattern, whole = self.shape.get("window_pattern"), int(self.shape["sequence_len"])
        if pattern is None or layer == self.shape["n_layer"] - 1 or pattern[layer % len(pattern)] == "L":
            return whole
        return -(-whole // 512) * 128


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to unit root mean square."""
    return F.rms_norm(x, (x.size(-1),), eps=EPS)


def draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """Return a token: the likeliest at temperature 0, else drawn among the `top_k` likeliest (0: all)."""
    if temperature < 1e-6 or top_k == 1:
        return int(logits.argmax())
    logits = logits / temperature
    if 0 < top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))


def answer(
    model: GrowingText, tokenizer: tiktoken.Encoding, prompt: str, args: argparse.Namespace
) -> Iterator[int]:
    """Yield the tokens of the answer; results of the calculator are put between those of the model."""
    special = {name: tokenizer.encode_single_token(f"<|{name}|>") for name in SPECIAL}
    asked = f"{args.system}\n\n{prompt}" if args.system else prompt
    text = [special["bos"], special["user_start"], *tokenizer.encode_ordinary(asked), special["user_end"]]
    text.append(special["assistant_start"])
    context = int(model.shape["sequence_len"])
    if len(text) >= context:
        raise SystemExit(f"the prompt has {len(text):,} tokens; with its answer it must fit into {context:,}")
    generator, logits = torch.Generator().manual_seed(args.seed), model.read(text)
    expression: list[int] | None = None
    due: deque[int] = deque()
    for _ in range(min(args.max_tokens, context - len(text))):
        drawn = draw(logits, args.temperature, args.top_k, generator)
        forced = bool(due)
        token = due.popleft() if forced else drawn
        if token in (special["assistant_end"], special["bos"]):
            return
        yield token
        if token == special["python_start"] and not forced:
            expression = []
        elif token == special["python_end"] and expression is not None:
            result, expression = calculate(tokenizer.decode(expression)), None
            if result is not None:
                written = tokenizer.encode_ordinary(result)
                due.extend([special["output_start"], *written, special["output_end"]])
        elif expression is not None and not forced:
            expression.append(token)
        logits = model.read([token])


def shown(tokens: Iterator[int], tokenizer: tiktoken.Encoding) -> Iterator[str]:
    """Yield an answer's text as soon as its characters are whole; a calculation reads `[3+4 = 7] `."""
    changes = {tokenizer.encode_single_token(name): kind for name, kind in KINDS.items()}
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    kind = last = "text"
    for token in chain(tokens, [None]):
        if token is None or token in changes:
            text = characters.decode(b"", final=True)
            characters.reset()
        else:
            text = characters.decode(tokenizer.decode_single_token_bytes(token))
        if text:
            yield BETWEEN.get((last, kind), "") + text
            last = kind
        kind = changes.get(token, kind) if token is not None else kind
    if last == "result":
        yield "] "


def main() -> None:
    """Answer one prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--model-dir", type=Path, default=Path(__file__).parent)
    parser.add_argument("--system", default="")
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    tokenizer = read_tokenizer(args.model_dir / "tokenizer.pkl")
    with torch.inference_mode():
        for text in shown(answer(GrowingText(args.model_dir), tokenizer, args.prompt, args), tokenizer):
            print(printable(text), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
