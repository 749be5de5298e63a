"""Where a token's time goes with int8 weights on a CPU, and what would not make it less.

`uv run python -m tests.benchmarks.bench_decode_parts [--rows 8] [--held 600] [--compile]`

A classic d20 with random weights. Beside the engine's step: a plain read of its weights; its products alone;
the attention of all layers, three ways; and the step written out as bare operations, without modules, engine
or rows of different lengths, with `--compile` as one graph of inductor's, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nanochat.model.attention import attend, rms_norm
from nanochat.model.gpt import GPT, LOGIT_CAP
from nanochat.model.inference_weights import weight_bytes
from nanochat.recipes.shared import model_shape
from tests.benchmarks.bench_chat import Ours, converted, random_model, read_bandwidth, words
from tests.benchmarks.measuring import hardware, print_table

_STEPS = 127  # of int8 on either side of zero
_PRODUCT = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32


class BareStep:
    """The products, norms, rotations and attention of one token in each row, and nothing else."""

    def __init__(self, model: GPT, rows: int, held: int) -> None:
        config = model.config
        room = 256 * -(-held // 256)  # memory comes in blocks
        self.length = held
        self.rows, self.heads, self.width = rows, config.n_head, config.n_embd // config.n_head
        blocks = model.transformer.h
        self.products = [(b.attn.c_qkv, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj) for b in blocks]
        self.head = model.lm_head
        generator = torch.Generator().manual_seed(0)
        size = (len(blocks), 2, rows, self.heads, room, self.width)  # as a cache has them
        self.held = torch.randn(size, generator=generator)
        self.cos, self.sin = torch.randn(2, rows, 1, self.width // 2, generator=generator)
        self.x = torch.randn(rows, config.n_embd, generator=generator)
        self.q = torch.randn(rows, 1, self.heads, self.width, generator=generator)

    @torch.inference_mode()
    def products_alone(self) -> None:
        wide = self.x.repeat(1, 4)
        for maps in self.products:
            for number, each in enumerate(maps):
                _product(wide if number == 3 else self.x, each)
        _product(self.x, self.head)

    @torch.inference_mode()
    def attention_by_row(self) -> None:
        for layer in self.held:
            for row in range(self.rows):
                k, v = (each[row : row + 1, :, : self.length].transpose(1, 2) for each in layer)
                attend(self.q[row : row + 1], k, v)

    @torch.inference_mode()
    def torch_attention_by_row(self) -> None:
        for layer in self.held:
            for row in range(self.rows):
                k, v = (each[row : row + 1, :, : self.length] for each in layer)
                F.scaled_dot_product_attention(self.q[row : row + 1].transpose(1, 2), k, v)

    @torch.inference_mode()
    def torch_attention_together(self) -> None:
        mask = torch.zeros(self.rows, 1, 1, self.length)
        for layer in self.held:
            k, v = (each[:, :, : self.length] for each in layer)
            F.scaled_dot_product_attention(self.q.transpose(1, 2), k, v, attn_mask=mask)

    def step(self) -> Tensor:
        x = self.x
        for layer, (c_qkv, c_proj, c_fc, c_proj_mlp) in enumerate(self.products):
            qkv = _product(rms_norm(x), c_qkv).view(self.rows, 3 * self.heads, self.width)
            qk, v = qkv[:, : 2 * self.heads], qkv[:, 2 * self.heads :]
            a, b = qk.chunk(2, dim=-1)
            qk = rms_norm(torch.cat((a * self.cos + b * self.sin, b * self.cos - a * self.sin), dim=-1))
            self.held[layer, 0, :, :, self.length - 1] = qk[:, self.heads :]
            self.held[layer, 1, :, :, self.length - 1] = v
            q = (qk[:, : self.heads] * self.width**-0.5)[..., None]
            keys, values = (each[:, :, : self.length] for each in self.held[layer])
            shares = torch.matmul(keys, q).softmax(dim=2)
            x = x + _product((values * shares).sum(dim=2).reshape(x.shape), c_proj)
            x = x + _product(F.relu(_product(rms_norm(x), c_fc)).square(), c_proj_mlp)
        return LOGIT_CAP * torch.tanh(_product(rms_norm(x), self.head) / LOGIT_CAP)


def _product(x: Tensor, weights: torch.nn.Module) -> Tensor:
    top = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    out: Tensor = _PRODUCT(x / top, 1 / _STEPS, _STEPS + 1, weights._packed) * top
    return out


def medians(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 2):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[2:]) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--held", type=int, default=96, help="positions that each row attends to")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = model_shape(args.depth, vocab_size=65_536, sequence_len=2048)
    model = converted(random_model(config), "int8")
    bare, ours = BareStep(model, args.rows, args.held), Ours(model, words(config.vocab_size))
    prompts = torch.randint(256, (args.rows, args.held), generator=torch.Generator().manual_seed(1)).tolist()
    ours.start(prompts, 2 * args.rounds)
    works: dict[str, Callable[[], object]] = {
        "the engine's step": ours.step,
        "its products alone": bare.products_alone,
        "its attention: a row at a time, as here": bare.attention_by_row,
        "torch's attention: a row at a time": bare.torch_attention_by_row,
        "torch's attention: all rows with a mask": bare.torch_attention_together,
        "the step as bare operations": torch.inference_mode()(bare.step),
    }
    if args.compile:
        works["the same, compiled whole"] = torch.no_grad()(torch.compile(bare.step, dynamic=False))
    found = medians(works, args.rounds)
    read = (weight_bytes(model) - model.transformer.wte.weight.nbytes) / read_bandwidth()
    print(f"{hardware()}; {args.threads} threads, {args.rows} rows, {args.held} positions")
    rows = [("a plain read of the weights", f"{1e3 * read:.1f} ms")]
    print_table(
        "a token in each row",
        ("part", "time"),
        [*rows, *((n, f"{1e3 * t:.1f} ms") for n, t in found.items())],
    )


if __name__ == "__main__":
    main()
