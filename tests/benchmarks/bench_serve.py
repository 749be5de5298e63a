"""Many clients at once against `nanochat serve`: how long they wait, and whether anything goes wrong.

`uv run python -m tests.benchmarks.bench_serve`: 64 clients for two minutes. A third of the requests are
given up, a tenth malformed, some read slowly; every answer that ends is compared with the one it gets alone.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.benchmarks.measuring import hardware
from tests.support.serve_load import load, write_random_model
from tests.support.serving import running_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_random_model(Path(folder) / "model")
        with running_server(model, home=Path(folder) / "home") as server:
            running = load(server.url, server.process.pid, clients=args.clients, seconds=args.seconds)
            found = asyncio.run(running)
    print(hardware())
    print(", ".join(f"{count:,} {end}" for end, count in sorted(found.ends.items())))
    print(f"to the first event: {found.percentile(0.5):.2f} s, 99 % within {found.percentile(0.99):.2f} s")
    memory = [size // 2**20 for size in found.memory_bytes]
    print(f"memory after a quarter, a half, all of the time: {memory[len(memory) // 4]},", end=" ")
    print(f"{memory[len(memory) // 2]}, {memory[-1]} MB")
    print("\n".join(found.wrong) or "nothing went wrong")


if __name__ == "__main__":
    main()
