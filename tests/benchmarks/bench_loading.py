"""How much memory a published model takes while it is loaded, by kind of weights.

`uv run python -m tests.benchmarks.bench_loading`

A classic model with random weights, written as a published folder, is opened as `nanochat chat` opens it,
each time in a new process. `own` is memory that only this process has; `with mapped pages` counts those of
the file too, which the system may drop. Peaks above what Python and torch take, as shares of the file.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from flows.models.find import open_engine
from flows.settings import Settings
from flows.store import Store
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.inference_weights import KINDS
from nanochat.recipes.shared import model_shape
from tests.benchmarks.bench_chat import random_model, words
from tests.benchmarks.measuring import hardware, print_table

_LOOK_S = 0.005


def resident() -> tuple[int, int]:
    """Return the bytes that only this process has, and all that it has in memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return own, own + mapped


def measure(folder: Path, kind: str) -> tuple[int, int]:
    """Return by how much both rise at most while a model is loaded."""
    before, peaks, done = resident(), [0, 0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peaks[:] = map(max, peaks, resident())
            time.sleep(_LOOK_S)

    thread = threading.Thread(target=watch)
    thread.start()
    settings = Settings.from_environment()
    open_engine(Store.open(settings.store_url, cache=settings.cache), str(folder), weights=kind)
    done.set()
    thread.join()
    return peaks[0] - before[0], peaks[1] - before[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--measure", nargs=2, metavar=("DIR", "KIND"), help="What a child process does.")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
        return
    config = model_shape(args.depth, vocab_size=65_536, sequence_len=2048)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, tokenizer = random_model(config), words(config.vocab_size)
        write_nanochat_folder(
            folder, state=model.state_dict(), config=config, tokenizer=tokenizer, step=1, results={}
        )
        del model
        size = next(folder.glob("model_*.pt")).stat().st_size
        rows = []
        for kind in KINDS:
            command = [sys.executable, "-m", "tests.benchmarks.bench_loading", "--measure", name, kind]
            own, every = json.loads(subprocess.check_output(command))
            rows.append((kind, f"{own / size:.2f}x", f"{every / size:.2f}x"))
    print(hardware())
    print_table(
        f"peak while a file of {size / 1e6:,.0f} MB is loaded", ("weights", "own", "with mapped pages"), rows
    )


if __name__ == "__main__":
    main()
