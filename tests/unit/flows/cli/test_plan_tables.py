"""What a plan says about the text of a folder."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from flows.cli.plan_tables import plan_json, text_lines
from flows.plan import make_plan
from flows.store import Store
from nanochat import recipes


def test_a_plan_lists_the_files_that_are_used_and_those_that_are_not_with_the_reason(tmp_path):
    texts = tmp_path / "texts"
    for name in ("a", "sub/b", "sub/c", "sub/d", "val"):
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": ["a text"]}), texts / f"{name}.parquet")
    (texts / "more.csv").write_text("text")
    (texts / ".hidden").write_text("")
    overrides = [f"corpus.source={texts}", "corpus.train_shards=null"]
    store = Store.open(str(tmp_path / "store"))
    plan = make_plan(recipes.find("toy", overrides), store)
    lines = text_lines(plan)
    assert lines[:3] == [
        f"text from {texts}: a, sub-b, sub-c and 1 more to train on; val to validate",
        "left out: 1 hidden (a name that begins with . or _): .hidden",
        "left out: 1 .csv: more.csv",
    ]
    assert lines[3].startswith("  to use it: uv run python -c ") and len(lines) == 4
    assert plan_json(plan, None)["text"] == {
        "train": ["a", "sub-b", "sub-c", "sub-d"],
        "validation": "val",
        "left_out": [
            {"why": "hidden (a name that begins with . or _)", "files": [".hidden"], "convert": None},
            {"why": ".csv", "files": ["more.csv"], "convert": lines[3].partition(": ")[2]},
        ],
    }
    assert text_lines(make_plan(recipes.find("toy"), store)) == []
