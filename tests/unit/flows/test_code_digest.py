"""A code change is a decision: `flows/stages.lock` holds what was reviewed."""

from __future__ import annotations

import json

import pytest

from flows import code_digest
from flows.stage import Stage
from flows.stages import STAGES


@pytest.mark.parametrize("name", STAGES)
def test_code_of_each_stage_is_what_was_reviewed(name):
    locked = json.loads(code_digest.LOCK.read_text(encoding="utf-8"))
    assert locked.get(name) == code_digest.current()[name], (
        f"the code that stage {name!r} reaches has changed: raise its version in flows/stages.py if"
        " results change, then confirm with `python -m flows.code_digest --confirm`"
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "nanochat").mkdir()
    (tmp_path / "nanochat/__init__.py").write_text("")
    (tmp_path / "nanochat/part.py").write_text("VALUE = 1\n")
    (tmp_path / "nanochat/work.py").write_text("from nanochat.part import VALUE\n")
    (tmp_path / "nanochat/other.py").write_text("ELSE = 1\n")
    monkeypatch.setattr(code_digest, "_ROOT", tmp_path)

    def forget():
        for cached in (code_digest._tree, code_digest._imports, code_digest._normal_form):
            cached.cache_clear()
        code_digest.code_digest.cache_clear()

    def digest():
        forget()
        return code_digest.code_digest(Stage(name="work", version=1, run="nanochat.work:run"))

    yield tmp_path, digest
    forget()


def test_digest_sees_changes_in_imported_modules_but_not_in_others_or_comments(project):
    root, digest = project
    before = digest()
    (root / "nanochat/other.py").write_text("ELSE = 2\n")
    (root / "nanochat/part.py").write_text('"""Said anew."""\n# a remark\nVALUE = 1\n')
    assert digest() == before
    (root / "nanochat/part.py").write_text("VALUE = 2\n")
    assert digest() != before
