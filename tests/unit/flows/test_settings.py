"""Settings: which folder and address each variable of the environment means."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import Settings
from flows.store import Store

_VARIABLES = ("NANOCHAT_HOME", "NANOCHAT_STORE", "XDG_CACHE_HOME")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Set variables in a clean environment whose user lives in `tmp_path`."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({}, ".cache/nanochat"),
        ({"XDG_CACHE_HOME": "~/caches"}, "caches/nanochat"),
        ({"NANOCHAT_HOME": "~/x"}, "x"),
        ({"NANOCHAT_HOME": "beside", "XDG_CACHE_HOME": "~/caches"}, "beside"),
    ],
)
def test_settings_and_store_agree_on_the_home_folder(variables, home, environment, tmp_path):
    environment(variables)
    settings = Settings.from_environment()
    assert settings.home == tmp_path / home
    assert Path(settings.store_url) == tmp_path / home / "store"
    assert Store.open("memory://elsewhere").cache == settings.cache == tmp_path / home / "cache"
