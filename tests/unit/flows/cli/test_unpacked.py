"""A published folder is replaced only where every entry is a link of an earlier run."""

from __future__ import annotations

import os
import shutil

import pytest

from flows.cli.unpacked import unpack
from flows.store import Store
from nanochat.errors import ConfigError


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def _publish(store, folder, key, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return store.commit(stage="publish", node="publish", key=key * 64, payload={}, folder=folder)


def test_a_later_model_replaces_the_links_of_an_earlier_one(store, tmp_path):
    target = tmp_path / "models/toy"
    unpack(store, _publish(store, tmp_path / "a", "a", README="1", old="x"), target)
    unpack(store, _publish(store, tmp_path / "b", "b", README="2"), target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"README": "2"}


def test_links_whose_blobs_are_gone_are_still_ours(store, tmp_path):
    target = tmp_path / "models/toy"
    unpack(store, _publish(store, tmp_path / "a", "a", README="1"), target)
    (target / "README").resolve().unlink()
    unpack(store, _publish(store, tmp_path / "b", "b", README="2"), target)
    assert (target / "README").read_text() == "2"


def test_copies_of_its_files_are_ours_since_the_store_has_them(store, tmp_path):
    unpack(store, _publish(store, tmp_path / "a", "a", README="1", z="2"), tmp_path / "models/toy")
    copied = tmp_path / "copied"
    shutil.copytree(tmp_path / "models/toy", copied)
    unpack(store, _publish(store, tmp_path / "b", "b", README="2"), copied)
    assert {path.name: path.read_text() for path in copied.iterdir()} == {"README": "2"}


@pytest.mark.parametrize("kind", ["file", "edited", "link", "link like ours", "file in a folder", "socket"])
def test_a_folder_with_something_of_a_users_is_left_as_it_is(kind, store, tmp_path):
    target, mine = tmp_path / "models/toy", tmp_path / "mine"
    mine.write_text("mine")
    unpack(store, _publish(store, tmp_path / "a", "a", README="1", z="2"), target)
    odd = target / {"edited": "README", "file in a folder": "sub/notes"}.get(kind, "notes")
    odd.parent.mkdir(exist_ok=True)
    odd.unlink(missing_ok=True)
    if kind.startswith("link"):
        odd.symlink_to(mine if kind == "link" else tmp_path / "blobs/ab/cd")
    elif kind == "socket":
        os.mkfifo(odd)
    else:
        odd.write_text("mine")
    before = sorted(target.rglob("*"))
    record = _publish(store, tmp_path / "b", "b", README="3")
    with pytest.raises(ConfigError, match=f"{odd} was not put there by a run") as caught:
        unpack(store, record, target)
    assert "-o name=" in caught.value.hint
    assert sorted(target.rglob("*")) == before and (target / "z").read_text() == "2"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_link_in_the_place_of_the_folder_is_left_as_it_is(kind, store, tmp_path):
    target, other = tmp_path / "toy", tmp_path / "other"
    other.mkdir()
    target.symlink_to(other) if kind == "link" else target.write_text("mine")
    with pytest.raises(ConfigError, match="is not a folder of a run"):
        unpack(store, _publish(store, tmp_path / "a", "a", README="1"), target)
    assert not list(other.iterdir())
