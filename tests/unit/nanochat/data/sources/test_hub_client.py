"""Who may read what of the hub, what is reported where it does not answer, against a hub on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from nanochat.config import ShardConfig, TasksConfig
from nanochat.data.sources import hub_client, patience
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.corpus import download_shard
from nanochat.data.sources.hub_client import list_data_set
from nanochat.data.sources.transfer import fetch
from nanochat.errors import ConfigError, DataError, SourceUnavailable
from nanochat.runtime import Runtime
from tests.support.hub_server import COMMIT, REVISION, HubServer, address, serving, without_hub_settings

ROOT = Path(__file__).parents[5]
REPO = "openai/gsm8k"
FILE = address(REPO, "main/test/0000.parquet")
BEARER = "Bearer hf_right"


@pytest.fixture
def hub(monkeypatch):
    """The hub that `HF_ENDPOINT` names; the user has no token yet."""
    monkeypatch.setattr(patience, "_ATTEMPTS", 1)
    without_hub_settings(monkeypatch)
    with serving(HubServer()) as hub:
        hub.token = "hf_right"
        name_hub(monkeypatch, hub.url)
        yield hub


@pytest.fixture
def elsewhere(monkeypatch):
    without_hub_settings(monkeypatch)
    with serving(HubServer()) as other:
        yield other


def name_hub(monkeypatch, url):
    """Set what `HF_ENDPOINT` is for a process that begins."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template[template.index("/{") :])


def download(hub, out, source="hub"):
    config = TasksConfig(source=source, toy=None, core_url=f"{hub.url}/eval_bundle.zip")
    return download_tasks(resolve_tasks(config), {}, out, Runtime())


def listing(hub, revision=REVISION):
    return list_data_set(REPO, revision, hub.url, lambda: None)


def run_python(code, **variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


def test_a_private_data_set_opens_to_the_right_token_alone(hub, tmp_path, monkeypatch):
    hub.private.add(REPO)
    with pytest.raises(DataError, match=f"{hub.url}/datasets/{REPO}: not a data set that you can") as caught:
        download(hub, tmp_path / "none")
    assert "set HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DataError, match="access refused: Invalid credentials") as caught:
        download(hub, tmp_path / "wrong")
    assert "is HF_TOKEN right?" in caught.value.hint and "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.asked.clear()
    assert download(hub, tmp_path / "right")["files"] > 12
    assert {authorization for _, authorization in hub.asked} == {BEARER}


def test_a_gated_data_set_that_can_be_listed_but_not_read_says_what_is_missing(hub, tmp_path, monkeypatch):
    hub.gated.add(REPO)
    assert listing(hub).commit == COMMIT
    with pytest.raises(DataError, match=r"cannot be read: .*401") as caught:
        download(hub, tmp_path / "none")
    assert "set HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert download(hub, tmp_path / "right")["files"] > 12


def test_a_gated_listing_names_the_page_where_access_is_given(hub):
    hub.answers[REPO] = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask its authors"}, b"")
    with pytest.raises(DataError, match="gated: Ask its authors") as caught:
        listing(hub)
    assert f"ask for access on {hub.url}/datasets/{REPO}" in caught.value.hint


def test_a_data_set_or_revision_that_is_not_there_is_said_to_be_so(hub):
    with pytest.raises(DataError, match="no revision 'lost': Invalid rev id: lost") as caught:
        listing(hub, "lost")
    assert caught.value.hint == "is tasks.revision right?"
    hub.missing.add(REPO)
    with pytest.raises(DataError, match="not a data set that you can read: Repository not found"):
        listing(hub)


def test_a_hub_that_asks_for_patience_gets_it(hub, monkeypatch):
    pauses = []

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            pauses.append(seconds)
            self.now += seconds

    monkeypatch.setattr(patience, "_ATTEMPTS", 3)
    monkeypatch.setattr(patience, "time", Clock())
    hub.busy = ["7", "9"]
    assert len(listing(hub).files) == 2
    assert sum(pauses) == pytest.approx(16)
    hub.busy = ["7"] * 3
    with pytest.raises(SourceUnavailable, match="429"):
        listing(hub)
    assert not hub.busy


def test_a_hub_that_is_away_may_be_back_later(monkeypatch):
    without_hub_settings(monkeypatch)
    monkeypatch.setattr(patience, "_ATTEMPTS", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(SourceUnavailable, match="no answer"):
            list_data_set(REPO, REVISION, hub, lambda: None)


def test_the_token_does_not_follow_a_redirect_to_another_host(hub, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.private.add(REPO)
    hub.elsewhere = elsewhere.url
    download(hub, tmp_path / "out")
    assert len(elsewhere.fetched) > 12
    assert {authorization for _, authorization in elsewhere.asked} == {None}
    assert (FILE, BEARER) in hub.asked


def test_an_address_that_only_begins_like_the_hubs_gets_no_token(hub, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    name_hub(monkeypatch, elsewhere.url[:-1])  # the port's last digit is missing
    fetch(elsewhere.url + FILE, tmp_path / "file", part_folder=tmp_path)
    assert {authorization for _, authorization in elsewhere.asked} == {None}


def test_the_mirror_of_a_recipe_wins_over_the_variable(hub, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.private.add(REPO)
    name_hub(monkeypatch, elsewhere.url)
    download(hub, tmp_path / "out", source=f"hub:{hub.url}/")
    assert (FILE, BEARER) in hub.asked and not elsewhere.asked


def test_the_public_hub_itself_may_be_such_a_mirror(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_client, "_DEFAULT", public := f"{elsewhere.url}/public")
    name_hub(monkeypatch, f"{elsewhere.url}/variable")
    monkeypatch.setattr(patience, "_ATTEMPTS", 1)
    with pytest.raises(DataError):
        fetch(f"{public}/file", tmp_path / "file", part_folder=tmp_path, hub=public)
    with pytest.raises(DataError):
        fetch(f"{public}/file", tmp_path / "file", part_folder=tmp_path)
    assert [path for path, _ in elsewhere.asked] == ["/public/file", "/variable/file"]


def test_text_of_a_private_corpus_comes_with_the_token(hub, tmp_path, monkeypatch):
    hub.private.add(REPO)
    shard = ShardConfig(name="shard", index=0, url=f"{hub.url}{FILE}")
    with pytest.raises(DataError, match="401") as caught:
        download_shard(shard, {}, tmp_path, Runtime())
    assert "set HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with pytest.raises(DataError, match="no column 'text'"):  # it has arrived: this data set has questions
        download_shard(shard, {}, tmp_path, Runtime())


_FETCH = f"""
import sys
from pathlib import Path
from nanochat.data.sources.transfer import fetch
target = Path(sys.argv[1])
print(fetch("https://huggingface.co{FILE}", target, part_folder=target.parent).to_json())
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""


def test_a_mirror_named_by_the_variable_serves_addresses_of_the_public_hub(hub, tmp_path):
    hub.private.add(REPO)
    code = _FETCH.replace("sys.argv[1]", repr(str(tmp_path / "file")))
    done = run_python(code, HF_ENDPOINT=hub.url, HF_TOKEN="hf_right")
    said, quiet = done.stdout.splitlines()
    assert json.loads(said.replace("'", '"'))["source_commit"] == COMMIT
    assert quiet == "True" and done.stderr == ""
    assert (tmp_path / "file").read_bytes() == hub.files[FILE]
    assert {authorization for _, authorization in hub.asked} == {BEARER}


_OFFLINE = """
from nanochat.config import ShardConfig, TasksConfig
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.corpus import download_shard
from nanochat.errors import ConfigError
from nanochat.runtime import Runtime
from pathlib import Path
url = "https://huggingface.co/datasets/a/b/resolve/main/shard.parquet"
for work in (
    lambda: download_shard(ShardConfig(name="a", index=0, url=url), {}, Path(), Runtime()),
    lambda: download_tasks(resolve_tasks(TasksConfig(source="hub", toy=None)), {}, Path("x"), Runtime()),
):
    try:
        work()
    except ConfigError as error:
        print(error, "|", error.hint)
"""


def test_offline_mode_is_an_error_before_anything_is_asked(hub):
    done = run_python(_OFFLINE, HF_HUB_OFFLINE="1", HF_ENDPOINT=hub.url)
    shard, tasks = done.stdout.splitlines()
    assert shard.startswith(f"{hub.url}/datasets/a/b/resolve/main/shard.parquet: not asked")
    assert tasks.startswith("tasks.source hub: not asked, since HF_HUB_OFFLINE is 1 | unset HF_HUB_OFFLINE")
    assert hub.asked == []


def test_a_variable_that_names_no_address_is_refused(hub, tmp_path, monkeypatch):
    name_hub(monkeypatch, "mirror.example")
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT is 'mirror\.example'"):
        download(hub, tmp_path / "out")
    assert hub.asked == []
