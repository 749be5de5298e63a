"""Prepares on a CPU what the short training on a GPU needs (`tests/benchmarks/gpu_training.py`).

Run with `uv run python -m infra.gpu.prepare`. It writes at most 30 MB into `.gpu/`, to be carried to a
machine without network: tokens of real text where shards are given (`--shards`), else of the toy world, by a
tokenizer trained on them; and the losses of the first steps in float32, as many as `--minutes` allow. Called
again it goes on with the losses. What that takes is kept beside, in `.gpu_state/`. Nothing here needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from kernels.measurement import about
from nanochat.config import TokenizerConfig, ToyWorldConfig
from nanochat.data.text.tokenize import read_texts
from nanochat.data.toy_world.documents import toy_documents
from nanochat.model.reproducible import cpu_threads
from nanochat.runtime import FolderRestartPoints, Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer
from nanochat.train.loop import training_steps
from tests.benchmarks import short_training as short
from tests.benchmarks.short_training import Curve, Size, Text

_OUT, _STATE, _SHARDS = Path(".gpu"), Path(".gpu_state"), Path("../shared/data/pretrain")
_MOST_BYTES = 30_000_000
_VOCABULARY, _TOY_VOCABULARY = 8192, 512
_TRAIN_TOKENS = 12_000_000
_TOKENIZER_SHARDS = 2
_KEEP_EVERY_S = 120.0


def prepare_text(folder: Path, shards: Sequence[Path], size: Size) -> Text:
    """Train a tokenizer, encode the shards (none: the toy world) and keep the tokens; the last validates."""
    with tempfile.TemporaryDirectory() as name:
        laid_out = _laid_out(Path(name) / "shards", shards)
        vocabulary = _VOCABULARY if shards else _TOY_VOCABULARY
        tokenizer_folder = Path(name) / "tokenizer"
        tokenizer_folder.mkdir()
        config = TokenizerConfig(vocab_size=vocabulary, train_shards=_TOKENIZER_SHARDS)
        train_tokenizer(config, {"shards": laid_out}, tokenizer_folder, Runtime())
        tokenizer = Tokenizer.load(tokenizer_folder)
        *train, val = sorted(laid_out.glob("*/text.parquet"))
        text = Text(
            train=_encoded(train, tokenizer, _TRAIN_TOKENS),
            val=_encoded([val], tokenizer, size.val_rows * size.length + 1),
            vocabulary=_token_texts(tokenizer),
        )
    text.save(folder)
    return text


def _laid_out(folder: Path, shards: Sequence[Path]) -> Path:
    """Lay out shards as the tokenizer's training reads them: one folder each."""
    for number, shard in enumerate(shards):
        (folder / f"{number:05d}").mkdir(parents=True)
        (folder / f"{number:05d}/text.parquet").symlink_to(shard.resolve())
    for number in range(0 if shards else 3):
        (folder / f"{number:05d}").mkdir(parents=True)
        table = pa.table({"text": list(toy_documents(ToyWorldConfig(), number))})
        pq.write_table(table, folder / f"{number:05d}/text.parquet")
    return folder


def _encoded(files: Sequence[Path], tokenizer: Tokenizer, most: int) -> npt.NDArray[np.uint16]:
    """Return the first tokens of some files, each document after a bos."""
    bos, parts, count = np.array([tokenizer.special("bos")], np.uint16), list[npt.NDArray[np.uint16]](), 0
    for texts in _batches(files):
        for ids in tokenizer.encode_batch(texts):
            parts += [bos, ids.astype(np.uint16)]
            count += 1 + len(ids)
        if count >= most:
            break
    return np.concatenate(parts)[:most]


def _batches(files: Sequence[Path]) -> Iterator[list[bytes]]:
    for file in files:
        yield from read_texts(file)


def _token_texts(tokenizer: Tokenizer) -> tuple[bytes, ...]:
    """Return the bytes of each token, none of special ones."""
    texts = {rank: token for token, rank in tokenizer.ranks.items()}
    return tuple(texts.get(token, b"") for token in range(tokenizer.vocab_size))


def extend_curve(folder: Path, state_folder: Path, text: Text, size: Size, minutes: float) -> Curve:
    """Take steps in float32 until the minutes are over, going on where the last call ended."""
    began = kept = time.monotonic()
    config = short.config_for(size, text, "float32", compiled=False)
    state, points = short.new_state(config, "cpu"), FolderRestartPoints(state_folder)
    settings = {"config": config.model_dump(mode="json")}
    curve = Curve(short.fingerprint(state.model), about=about("cpu"))
    if short.has_curve(folder) and state.restore(points, settings):
        curve = Curve.load(folder)
        curve.cut(state.step)
    for result in training_steps(state, short.plan_for(config, text)):
        curve.add(result)
        print(f"step {result.step}: {result.loss:.4f} ({result.seconds:.0f} s)", file=sys.stderr)
        now = time.monotonic()
        ends = now - began >= 60 * minutes or result.step >= size.compared
        if ends or now - kept >= _KEEP_EVERY_S:
            state.save(points, settings)
            curve.save(folder)
            kept = now
        if ends:
            break
    return curve


def main() -> int:
    """Prepare what is missing; return 1 if it is too much to carry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25.0, help="for steps on the CPU")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=Path, default=_SHARDS, help="folder of *.parquet with a column text")
    parser.add_argument("--out", type=Path, default=_OUT)
    parser.add_argument("--state", type=Path, default=_STATE)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if short.has_tokens(options.out):
        text = Text.load(options.out)
    else:
        text = prepare_text(options.out, sorted(options.shards.glob("*.parquet")), short.FULL)
    with cpu_threads(options.threads):
        curve = extend_curve(options.out, options.state, text, short.FULL, options.minutes)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(json.dumps({"tokens": len(text.train), "steps": len(curve.losses), "bytes": size}))
    if size > _MOST_BYTES:
        print(f"{options.out} has {size:,} bytes, more than {_MOST_BYTES:,}", file=sys.stderr)
    return int(size > _MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
