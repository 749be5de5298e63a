from __future__ import annotations

from typer.testing import CliRunner

from flows.cli.app import app
from flows.store import Store
from nanochat.evals.jail import levels


def test_a_run_that_cannot_jail_programs_stops_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "_tried", lambda: (None, ("landlock: not in this kernel",)))
    store = str(tmp_path / "store")
    stopped = CliRunner().invoke(app, ["run", "toy", "--store", store, "--until", "evaluate_base"])
    assert isinstance(stopped.exception, levels.JailError)
    assert "landlock: not in this kernel" in str(stopped.exception)
    assert "--allow-unsafe-code" in stopped.exception.hint
    assert not Store.open(store).catalog.listed("download")
