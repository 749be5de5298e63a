"""Settings: which folder and address each variable of the environment means."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import Settings
from flows.store import Store
from nanochat.errors import ConfigError
from nanochat.sqlite_urls import sqlite_path

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


@pytest.mark.parametrize("name", ["a b", "100%25", "# 1", "Größe 日本", "why?"])
def test_the_database_of_an_odd_home_is_in_that_home(name, environment, tmp_path):
    environment({"NANOCHAT_HOME": str(tmp_path / name)})
    assert sqlite_path(Settings.from_environment().mlflow_uri) == tmp_path / name / "mlflow.db"


@pytest.mark.parametrize(
    ("home", "words"),
    [
        ("/" + "x" * 300 + "/" + "y" * 200, "has 502 bytes, more than the 470"),
        ("/a\nb", r"control characters"),
        ("~nobody-has-this-name/x", r"there is no such user"),
    ],
)
def test_a_home_that_cannot_hold_databases_is_refused_with_a_way_out(home, words, environment):
    environment({"NANOCHAT_HOME": home})
    with pytest.raises(ConfigError, match=words) as raised:
        Settings.from_environment()
    assert "NANOCHAT_HOME" in str(raised.value.hint)


def test_a_store_whose_address_has_a_password_is_refused_without_naming_it(environment):
    environment({"NANOCHAT_STORE": "sftp://me:CANARY@host/store"})
    with pytest.raises(ConfigError, match="NANOCHAT_STORE is sftp://host/store with a password") as caught:
        Settings.from_environment()
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"
    assert Settings.from_environment(store="sftp://me@host/x").store_url == "sftp://me@host/x"


@pytest.mark.parametrize("url", ["", " ", "a\0b", "http://host/store", "s3:/bucket/store"])
def test_what_is_not_the_address_of_a_store_is_refused_and_no_other_store_is_taken(url):
    with pytest.raises(ConfigError, match=r"^--store is .*(not an address|cannot be written)"):
        Settings.from_environment(store=url)


@pytest.mark.parametrize("url", ["./s3:/b", "a folder", "s3://bucket/x", "memory://x", "file:///x", "C:/x"])
def test_the_address_of_a_store_is_taken_as_it_is(url):
    assert Settings.from_environment(store=url).store_url == url
