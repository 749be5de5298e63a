"""A model that a whole run has made leaves the store and comes back as the same model."""

from __future__ import annotations

import pytest

from flows.models.import_export import export_model, import_model
from flows.models.pushed_files import gather
from flows.models.score import find_examinee, questions
from flows.store import Store
from nanochat.formats.published import Choice

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.xdist_group("prefect"),
    pytest.mark.timeout(1500),
]


def test_a_published_model_is_exported_whole_imported_and_scored_as_before(small_runs, tmp_path):
    home = small_runs.nanochat.home
    store = Store.open(str(home / "store"), cache=home / "cache")
    export_model(store, "publish", tmp_path / "out", form="nanochat", layout="flat", choice=Choice())
    unpacked = {path.name: path.read_bytes() for path in (home / "models/toy").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == unpacked
    assert "README.md" in unpacked

    elsewhere = tmp_path / "theirs"
    export_model(store, "publish", elsewhere, form="transformers", layout="flat", choice=Choice())
    pushed = gather(store, "publish", "transformers", Choice(), tmp_path / "pushed" / "model")
    assert set(pushed) == {path.name for path in elsewhere.iterdir()} | {"README.md", "results.json"}
    import_model(store, tmp_path / "scratch", elsewhere, Choice())
    trained, taken = (find_examinee(store, ref) for ref in ("publish", "import"))
    with questions(store, trained, tasks=("arc_easy", "val_bpb"), limit=2) as asked:
        before, after = asked.score(trained), asked.score(taken)
    assert (after.results, after.items) == (before.results, before.items)
    assert before.results["metrics"]["val_bpb"] > 0
