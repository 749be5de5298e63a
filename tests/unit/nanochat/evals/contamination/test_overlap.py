from __future__ import annotations

import pytest

from nanochat.errors import DataError
from nanochat.evals.contamination.overlap import Overlap, TaskOverlap, merge, overlap_lines


def overlap(documents, overlapping, **tasks):
    found = {name: TaskOverlap(items=9, too_short=2, overlapping=items) for name, items in tasks.items()}
    core = {"easy": TaskOverlap(items=3, too_short=3, overlapping=())}
    return Overlap(
        ngram_words=13,
        shards=1,
        documents=documents,
        overlapping_documents=overlapping,
        tasks=found,
        core=core,
    )


def test_an_item_that_overlaps_with_two_shards_counts_once():
    both = merge([overlap(100, 3, easy=(1, 4), hard=()), overlap(63, 2, easy=(0, 4), hard=(8,))])
    assert (both.shards, both.documents, both.overlapping_documents) == (2, 163, 5)
    assert {name: task.overlapping for name, task in both.tasks.items()} == {"easy": (0, 1, 4), "hard": (8,)}
    assert (both.tasks["easy"].items, both.tasks["easy"].judged) == (9, 7)
    assert both.tasks["easy"].part == pytest.approx(3 / 7)
    assert both.core["easy"].part is None


def test_a_file_gives_back_what_was_written(tmp_path):
    written = overlap(100, 3, easy=(1, 4))
    written.write(tmp_path / "x.json")
    assert Overlap.read(tmp_path / "x.json") == written


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"tasks": {"easy": 3}, "core": {}}'])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json holds no overlap"):
        Overlap.read(tmp_path / "x.json")


def test_people_read_a_line_a_task():
    assert overlap_lines(overlap(100, 3, easy=(1, 4))) == {
        "documents": 100,
        "overlapping_documents": 3,
        "easy": "2 of 7 judged items overlap (28.57 %), 2 too short",
        "easy (CORE)": "0 of 0 judged items overlap, 3 too short",
    }
