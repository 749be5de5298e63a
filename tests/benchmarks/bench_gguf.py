"""What a model loses in llama.cpp with each type of weights, and how many tokens are cut elsewhere.

`uv run python -m tests.benchmarks.bench_gguf MODEL --text SHARD`

MODEL is what `nanochat export` takes. Perplexity is that of the beginnings of documents, each alone in the
context, against ours: with logits capped as ours are, which leaves what the type loses, and as llama.cpp has
them. Tokens are counted with a vocabulary that is trained on the text.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import rustbpe
import torch
from torch import Tensor

from flows.cli.options import open_store
from flows.models.find import open_model
from nanochat.config import ModelConfig
from nanochat.formats.gguf_file import write_gguf
from nanochat.formats.gguf_weights import WeightType
from nanochat.formats.published import Published
from nanochat.model.gpt import GPT, LOGIT_CAP
from nanochat.tokenizer.split import PATTERN
from nanochat.tokenizer.tokenizer import Tokenizer
from tests.benchmarks.measuring import hardware, print_table
from tests.support.llama_cpp import LlamaCpp

VOCABULARY = 32_768


@dataclass(frozen=True)
class Row:
    """The beginning of a document, and our logits (T, V) for it."""

    ids: list[int]
    ours: Tensor

    def surprise(self, logits: Tensor) -> float:
        """Return the cross entropy of the next tokens in nats, summed."""
        found = torch.nn.functional.cross_entropy(
            logits[:-1].double(), torch.tensor(self.ids[1:]), reduction="sum"
        )
        return float(found)

    def divergence(self, logits: Tensor) -> float:
        """Return the KL divergence of their distributions from ours in nats, summed."""
        ours, theirs = (found[:-1].double().log_softmax(-1) for found in (self.ours, logits))
        return float((ours.exp() * (ours - theirs)).sum())

    def agreement(self, logits: Tensor) -> float:
        """Return for how many tokens the likeliest next one is the same."""
        return float((self.ours[:-1].argmax(-1) == logits[:-1].argmax(-1)).sum())


@torch.inference_mode()
def read_rows(published: Published, texts: Sequence[str], *, length: int, count: int) -> list[Row]:
    """Return the first documents that have as many tokens, each cut to them."""
    tokenizer = published.tokenizer
    encoded = ([tokenizer.special("bos"), *tokenizer.encode(text[: 16 * length])] for text in texts)
    whole = (ids[:length] for ids in encoded if len(ids) >= length)
    return [Row(ids, published.model(torch.tensor([ids]))[0]) for ids in itertools.islice(whole, count)]


def capped(logits: Tensor) -> Tensor:
    """Return logits with the cap that llama.cpp does not have."""
    return LOGIT_CAP * torch.tanh(logits / LOGIT_CAP)


def losses(published: Published, rows: Sequence[Row], path: Path) -> Iterator[tuple[str, ...]]:
    """Yield a line for each type."""
    tokens = sum(len(row.ids) - 1 for row in rows)
    ours = sum(row.surprise(row.ours) for row in rows) / tokens
    yield "ours, float32", "", f"{math.exp(ours):.3f}", "1", "0", "1", "0", "100 %"
    for kind in get_args(WeightType):
        write_gguf(path, published, kind)
        model = LlamaCpp(path, context=len(rows[0].ids), threads=torch.get_num_threads())
        free = [torch.from_numpy(model.logits(row.ids)) for row in rows]
        model.close()
        cells = [kind, f"{path.stat().st_size / 1e6:.2f} MB", ""]
        for found in ([capped(logits) for logits in free], free):
            pairs = list(zip(rows, found, strict=True))
            cells.append(f"{math.exp(sum(row.surprise(x) for row, x in pairs) / tokens - ours):.4f}")
            cells.append(f"{sum(row.divergence(x) for row, x in pairs) / tokens:.1e}")
        same = sum(row.agreement(x) for row, x in zip(rows, free, strict=True)) / tokens
        yield *cells, f"{same:.2%}"


def tokenizers(texts: Sequence[str], path: Path) -> tuple[Tokenizer, LlamaCpp]:
    """Return a tokenizer that is trained on texts, and the same in llama.cpp."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), VOCABULARY - 9, pattern=PATTERN)
    tokenizer = Tokenizer.from_ranks({bytes(token): rank for token, rank in trainer.get_mergeable_ranks()})
    shape = {"n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 32}
    model = GPT(ModelConfig(sequence_len=64, vocab_size=tokenizer.vocab_size, **shape))
    for weight in model.parameters():
        weight.data.zero_()
    write_gguf(path, Published(model=model, tokenizer=tokenizer), "f32")
    return tokenizer, LlamaCpp(path, context=64)


def starts(tokenizer: Tokenizer, ids: Sequence[int]) -> set[tuple[int, int]]:
    """Return each token with the byte at which it begins."""
    lengths = tokenizer.token_bytes()[np.array(ids, dtype=np.int64)]
    return set(zip((np.cumsum(lengths) - lengths).tolist(), ids, strict=True))


def elsewhere(
    texts: Sequence[str], tokenizer: Tokenizer, encode: Callable[[str], list[int]]
) -> Iterator[tuple[str, str]]:
    """Yield what was counted, and how much of it."""
    lost, tokens, documents = list[str](), 0, 0
    for text in texts:
        ours = tokenizer.encode(text)
        missing = starts(tokenizer, ours) - starts(tokenizer, encode(text))
        lost += [tokenizer.decode([token]) for _, token in missing]
        tokens, documents = tokens + len(ours), documents + bool(missing)
    yield "tokens", f"{tokens:,}"
    yield "of ours not in their place", f"{len(lost) / tokens:.3%}"
    yield "of them digits", f"{sum(token.isdigit() for token in lost):,}"
    yield "of them blanks", f"{sum(token.isspace() for token in lost):,}"
    yield "of them others", f"{sum(not token.isdigit() and not token.isspace() for token in lost):,}"
    yield "documents that have one", f"{documents / len(texts):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--store")
    parser.add_argument("--text", type=Path, required=True, help="a parquet file with a column `text`")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--length", type=int, help="tokens of each document (default: the context)")
    args = parser.parse_args()
    texts = pq.read_table(args.text, columns=["text"]).column("text").to_pylist()
    published = open_model(open_store(args.store)[1], args.model)
    length = args.length or published.model.config.sequence_len
    rows = read_rows(published, texts, length=length, count=args.documents)
    if not rows:
        parser.error(f"no document of {args.text} has {length} tokens: use a smaller --length")
    print(hardware())
    with tempfile.TemporaryDirectory() as folder:
        columns = (
            "weights",
            "file",
            "perplexity",
            "capped: ratio",
            "KL",
            "as it is: ratio",
            "KL",
            "same likeliest",
        )
        title = f"{len(rows)} documents of {length} tokens; KL in nats a token"
        print_table(title, columns, list(losses(published, rows, Path(folder) / "model.gguf")))
        tokenizer, theirs = tokenizers(texts, Path(folder) / "tokens.gguf")
    by_three = Tokenizer(tokenizer.ranks, tokenizer.special_tokens, PATTERN.replace("{1,2}", "{1,3}"))
    for name, encode in (("of the file", theirs.encode), ("of llama-bpe alone", by_three.encode)):
        title = f"Tokens {name} in {args.text.name}, a vocabulary of {tokenizer.vocab_size:,}"
        print_table(title, ("", ""), list(elsewhere(texts, tokenizer, encode)))


if __name__ == "__main__":
    main()
