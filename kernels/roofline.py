"""The least a training step of d20 can cost on one of eight H100s, counted from shapes; nothing is timed.

`uv run python -m kernels.roofline` prints the table that `kernels/results/roofline.md` keeps (`--write`
writes it).

For each part: operations and bytes of a step by formula; the time that the slower of the two takes at the
data sheet's rates; and the share of that rate which good kernels reach, from which the budget follows. Shares
of products and copies are measured ceilings of the card, those of attention are published for Triton; ours
are not timed yet.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from kernels.goals import goal
from kernels.sizes import logit_chunk

FLOPS_PER_S, BYTES_PER_S, LINK_BYTES_PER_S = (
    989e12,
    3.35e12,
    450e9,
)  # H100 SXM: bfloat16, HBM3, NVLink one way
LAUNCH_S = 5e-6  # of a kernel that the host is not ahead of
# Counted on rank 0 of 8 for d20, fake tensors: sums of gradients 142, norm and clip 12, the update 169. The
# host queues a whole step before it reads anything, so that they cost time only where it falls behind.
OPTIMIZER_LAUNCHES = 142 + 12 + 169
TARGET_MS = goal("d20 step").limit
UPSTREAM_MS = 487  # its log of d20 on 8 x H100: 482 to 488 ms
LOSS_TARGET_BYTES = goal("linear_cross_entropy memory").limit * 2**30
RESULT = Path(__file__).parent / "results/roofline.md"

# Share of the data sheet's rate that a good kernel reaches.
PRODUCT = 798 / 989  # cuBLAS, 8192^3
# Triton beside cuBLAS, by cycles of a tile: 20,480 of products, and what is not hidden by them. Up squares
# and stores a tile; down starts a program too, and takes a square root for each number, 16 a cycle.
FUSED_UP, FUSED_DOWN = 20_480 / (20_480 + 1_900) * PRODUCT, 20_480 / (20_480 + 4_600) * PRODUCT
ATTENTION_FORWARD, ATTENTION_BACKWARD = 430 / 989, 330 / 989  # Triton at 2,048 tokens, head dimension 128
MEMORY = 0.85 * 3.0 / 3.35  # of a device copy, which itself reaches 3.0 TB/s
SMALL_PRODUCT = 0.5  # of the optimizer
LINK = 0.8


@dataclass(frozen=True)
class Shape:
    """A model and what one GPU sees of it in a step."""

    tokens: int = 32 * 2048
    length: int = 2048
    width: int = 1280
    layers: int = 20
    vocab: int = 65_536
    gpus: int = 8

    @property
    def accumulated_chunk(self) -> int:
        """Return the tokens whose logits the loss holds at a time."""
        return logit_chunk(self.tokens, self.width, self.vocab, 2)

    @property
    def inner(self) -> int:
        """Return the MLP's width."""
        return 4 * self.width

    @property
    def stream(self) -> int:
        """Return the bytes of one pass over (N, C) bfloat16 numbers."""
        return 2 * self.tokens * self.width


@dataclass(frozen=True)
class StepPart:
    """One part of a step; `share` is of the rate that bounds it."""

    name: str
    flops: float
    bytes: float
    share: float
    link_bytes: float = 0.0
    launches: int = 0

    @property
    def floor_ms(self) -> float:
        """Return the time at the data sheet's rates."""
        return 1e3 * max(
            self.flops / FLOPS_PER_S,
            self.bytes / BYTES_PER_S,
            self.link_bytes / LINK_BYTES_PER_S,
            self.launches * LAUNCH_S,
        )

    @property
    def budget_ms(self) -> float:
        """Return the time that a good kernel takes."""
        return self.floor_ms / self.share


def product_bytes(rows: int, n_in: int, n_out: int) -> int:
    """Return the bytes of a bfloat16 product, each operand moved once."""
    return 2 * (rows * n_in + n_in * n_out + rows * n_out)


def parts(shape: Shape) -> list[StepPart]:
    """Return all parts of a step: forward and backward, then the optimizer."""
    return [*_block_parts(shape), *_loss_parts(shape), *_optimizer_parts(shape)]


def _block_parts(s: Shape) -> list[StepPart]:
    projections = 3 * 4 * s.layers  # forward and two gradients of q, k, v and the output
    attention = 4 * s.tokens * s.width * (s.length + 1) / 2 * s.layers  # two products over visible pairs
    plain = 4 * s.layers  # of the MLP's six products, the two fused ones apart
    one_mlp = 2 * s.tokens * s.width * s.inner
    mlp_bytes = product_bytes(s.tokens, s.width, s.inner)
    inner_pass = 2 * s.tokens * s.inner
    return [
        StepPart(
            "attention: projections",
            projections * 2 * s.tokens * s.width**2,
            projections * product_bytes(s.tokens, s.width, s.width),
            PRODUCT,
        ),
        StepPart("attention: forward", attention, 4 * s.stream * s.layers, ATTENTION_FORWARD),
        StepPart("attention: backward", 2.5 * attention, 8 * s.stream * s.layers, ATTENTION_BACKWARD),
        StepPart("MLP: relu_squared up", s.layers * one_mlp, s.layers * mlp_bytes, FUSED_UP),
        StepPart(
            "MLP: relu_squared down",
            s.layers * one_mlp,
            s.layers * (mlp_bytes + inner_pass),
            FUSED_DOWN,
        ),
        StepPart("MLP: other products", plain * one_mlp, plain * mlp_bytes, PRODUCT),
        # Of q and of k: read and written; then gradient and input read and gradient written.
        StepPart("qk_norm_rotary", 0, (2 * 2 + 2 * 3) * s.stream * s.layers, MEMORY),
        # Compiled, two per layer. Forward: sum and branch in, sum and norm out. Backward: the products'
        # gradients (three of attention, one of the MLP), what was normed and the sum's gradient in, one out.
        StepPart("residual adds and RMS norms", 0, (2 * 4 + 6 + 4) * s.stream * s.layers, MEMORY),
        StepPart("embedding and outer norms", 0, 16 * s.stream, MEMORY),
    ]


def _loss_parts(s: Shape) -> list[StepPart]:
    logits = 2 * s.tokens * s.vocab
    weight = s.vocab * s.width
    chunks = -(-s.tokens // s.accumulated_chunk)
    products = 3 * logits + chunks * (2 * 2 + 2 * 4) * weight + 4 * s.stream
    return [
        StepPart("linear_cross_entropy: products", 6.0 * s.tokens * weight, products, PRODUCT),
        StepPart("linear_cross_entropy: rows", 0, 2 * logits, MEMORY),
    ]


def _optimizer_parts(s: Shape) -> list[StepPart]:
    square, wide = 4 * s.layers * s.width**2, 2 * s.layers * s.width * s.inner
    tables = 2 * s.vocab * s.width
    matrices, m, n = square + wide, s.width, s.inner
    weights, own, others = matrices + tables, (matrices + tables) / s.gpus, 1 - 1 / s.gpus
    # Five iterations of X X^T, its square, and the product with X.
    muon = 5 * s.layers * (4 * 6 * m**3 + 2 * (4 * m * m * n + 2 * m**3)) / s.gpus
    return [
        # The MLP's for forward and again for backward, all others once.
        StepPart("weights in bfloat16", 0, 6 * (square + 2 * wide + tables / 2), MEMORY),
        StepPart("weight gradients, the second half of float32", 0, 2 * matrices, MEMORY),
        # Put below one another; received from all and added in the order of ranks, three passes a sum.
        StepPart("gradients: copied and summed", 0, 8 * weights + 12 * (s.gpus - 1) * own, MEMORY),
        StepPart("gradients: norm and clip", 0, 12 * own, MEMORY),
        StepPart("Muon, sharded", muon, 24 * matrices / s.gpus, SMALL_PRODUCT),
        StepPart("AdamW, sharded", 0, 28 * tables / s.gpus, MEMORY),
        StepPart("weights: copied from what ranks sent", 0, 8 * weights, MEMORY),
        # In float32, as upstream exchanges all but its embedding: sums of ranks are not rounded, and weights
        # are the same everywhere. A compiled backward pass returns all gradients at its end, and so hides
        # none of their exchange; Muon hides that of the tables; nothing hides the matrices'.
        StepPart(
            "between GPUs, not hidden: gradients, matrices", 0, 0, LINK, 4 * others * (weights + matrices)
        ),
        StepPart("launches of the optimizer, if none is hidden", 0, 0, 1.0, launches=OPTIMIZER_LAUNCHES),
    ]


def step_flops(s: Shape) -> float:
    """Return the operations that MFU counts, as upstream does: all pairs, head included, embedding not."""
    matrices = s.layers * (4 * s.width**2 + 2 * s.width * s.inner) + s.vocab * s.width
    return s.tokens * (6.0 * matrices + 12.0 * s.layers * s.width * s.length)


def loss_bytes(s: Shape) -> int:
    """Return the memory of the loss beside its inputs: logits of a chunk, both gradients, the cast weight."""
    weight = s.vocab * s.width
    return 2 * s.accumulated_chunk * s.vocab + s.stream + 4 * weight + 2 * weight


def report(shape: Shape) -> str:
    """Return the table and what it adds up to."""
    rows = parts(shape)
    lines = [
        "# A training step of d20, counted",
        "",
        f"One of {shape.gpus} H100 SXM, {shape.tokens:,} tokens a step; {FLOPS_PER_S / 1e12:.0f} TFLOP/s,"
        f" {BYTES_PER_S / 1e12} TB/s, {LINK_BYTES_PER_S / 1e9:.0f} GB/s. Nothing is timed.",
        "Written by `uv run python -m kernels.roofline --write`.",
        "",
        "| part | TFLOP | GB | floor ms | share of the rate | budget ms |",
        "|---|---|---|---|---|---|",
    ]
    for part in rows:
        gigabytes = (part.bytes or part.link_bytes) / 1e9
        lines.append(
            f"| {part.name} | {part.flops / 1e12:.2f} | {gigabytes:.1f} | {part.floor_ms:.1f}"
            f" | {part.share:.2f} | {part.budget_ms:.1f} |"
        )
    floor, budget = sum(p.floor_ms for p in rows), sum(p.budget_ms for p in rows)
    counted_ms, head = 1e3 * step_flops(shape) / FLOPS_PER_S, loss_bytes(shape)
    utilisation, upstream = counted_ms / budget, counted_ms / UPSTREAM_MS
    lines += [
        f"| all | {sum(p.flops for p in rows) / 1e12:.2f} | | {floor:.1f} | | {budget:.1f} |",
        "",
        f"Budget {budget:.0f} ms, target {TARGET_MS:.0f} ms: {_verdict(budget <= TARGET_MS)};"
        f" {utilisation:.1%} MFU. Upstream's log has {UPSTREAM_MS} ms ({upstream:.1%}).",
        f"Loss head {head / 2**30:.2f} GiB, target {LOSS_TARGET_BYTES / 2**30:.1f} GiB:"
        f" {_verdict(head <= LOSS_TARGET_BYTES)}.",
    ]
    return "\n".join(lines) + "\n"


def _verdict(met: bool) -> str:
    return "met by count" if met else "MISSED by count"


def main() -> None:
    """Print the table; with --write, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} too")
    text = report(Shape())
    print(text, end="")
    if parser.parse_args().write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
