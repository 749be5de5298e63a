"""Count what a run plans, reads and opens: `python -m tests.e2e.counted_run CORPUS WORD...`.

Runs the words of a command line, then the flow by itself as a worker does. Once the first plan is made, a
fourth shard joins the three of CORPUS, in between. The last line printed is JSON: the counts of each run, and
the nodes of the flow by itself. It has a process of its own because Prefect reads its settings once.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import flows.plan
from flows.settings import Settings
from flows.store import Store
from nanochat import recipes

_COUNTED = {
    "plans": (flows.plan, "make_plan"),
    "settings": (Settings, "from_environment"),
    "stores": (Store, "open"),
}


def main(corpus: Path, words: list[str]) -> None:
    """Run both ways and print what was counted."""
    made: Counter[str] = Counter()

    def counted(what, function):
        def count(*args, **options):
            made[what] += 1
            result = function(*args, **options)
            if what == "plans":
                shutil.copy(corpus / "shard_00000.parquet", corpus / "shard_00000_more.parquet")
            return result

        return count

    with ExitStack() as patches:
        for what, (owner, name) in _COUNTED.items():  # before anybody else has imported make_plan
            patches.enter_context(mock.patch.object(owner, name, counted(what, getattr(owner, name))))
        from flows.cli.app import app

        app(words, standalone_mode=False)
        of_command = dict(made)
        made.clear()
        from flows.pipeline import pipeline

        recipe = recipes.find("toy", [f"corpus.source={corpus}", "corpus.val_shard=shard_00002"])
        nodes = pipeline(recipe=recipe, until="download")
    print(json.dumps({"command": of_command, "worker": dict(made), "nodes of worker": sorted(nodes)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
