"""`nanochat push` against a hub on this machine."""

from __future__ import annotations

import hashlib
import json

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from flows.cli.app import app
from flows.models.pushed_files import refuse_secrets
from nanochat.errors import ConfigError, SourceUnavailable
from nanochat.publish.signature import check
from tests.support.hub_pages import HubPages, pages_served
from tests.support.hub_server import without_hub_settings
from tests.support.serve_load import write_random_model
from tests.support.signing_keys import write_keys

# The hub's library sends a file as its client's next version will not take it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

_SAFE = {"config.json", "generation_config.json", "model.safetensors", "nanochat.json", "tokenizer.json"}
_SAFE |= {"tokenizer_config.json"}
_OWN = {"generate_cpu.py", "meta_000001.json", "model_000001.pt", "token_bytes.pt", "tokenizer.pkl"}


@pytest.fixture
def hub(monkeypatch):
    without_hub_settings(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with pages_served(HubPages()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture
def model(tmp_path):
    folder = write_random_model(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    (folder / ".env").write_text("HF_TOKEN=hf_of_the_user")
    return folder


@pytest.fixture
def push(model, tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))

    def call(*words, name="me/mine"):
        return CliRunner().invoke(app, ["push", str(model), name, *words])

    return call


def test_nothing_is_sent_before_somebody_agrees_to_what_will_be_seen(push, hub):
    asked = push()
    assert isinstance(asked.exception, ConfigError) and "--yes" in asked.exception.hint
    assert "me/mine (new), as me; only those who may read it will see:" in asked.stderr
    assert all(path in asked.stderr for path in (*_SAFE, *_OWN, "README.md"))
    assert hub.pages == {} and hub.objects == {}
    assert "everybody will see:" in push("--public").stderr


def test_a_model_goes_to_a_private_page_once(push, hub, model):
    first = push("--yes")
    assert first.exit_code == 0 and first.stdout == f"{hub.url}/me/mine\n"
    page = hub.pages["me/mine"]
    assert page.private and set(page.files) == _SAFE | _OWN | {"README.md"} and hub.validated == 1
    assert page.files["model_000001.pt"] == (model / "model_000001.pt").read_bytes()
    taken = len(hub.sent)
    second = json.loads(push("--yes", "--json").stdout)
    assert second["sent"] == [] and second["commit"] is None and set(second["files"]) == set(page.files)
    assert len(hub.sent) == taken and len(page.commits) == 1
    (model / "README.md").write_text("---\nlicense: mit\n---\n# mine, better told\n")
    assert json.loads(push("--yes", "--json").stdout)["sent"] == ["README.md"]
    assert len(hub.sent) == taken and len(page.commits) == 2
    assert hub.token not in first.output + second["page"] + str(page.files)


def test_a_signed_model_is_signed_once_and_never_left_with_a_signature_that_does_not_fit(
    push, hub, model, tmp_path
):
    private, public = write_keys(tmp_path)
    assert push("--yes", "--sign", str(private)).exit_code == 0
    page = hub.pages["me/mine"]
    cloned = tmp_path / "cloned"
    for name, content in page.files.items():
        (cloned / name).parent.mkdir(parents=True, exist_ok=True)
        (cloned / name).write_bytes(content)
    assert set(check(cloned, public).files) == set(page.files) - {"model.sig"}
    for words in (["--sign", str(private)], []):
        assert json.loads(push("--yes", "--json", *words).stdout)["sent"] == []
    (model / "README.md").write_text("---\nlicense: mit\n---\n# mine, changed\n")
    refused = push("--yes")
    assert isinstance(refused.exception, ConfigError) and "README.md would no longer fit" in str(
        refused.exception
    )
    assert json.loads(push("--yes", "--json", "--sign", str(private)).stdout)["sent"] == [
        "README.md",
        "model.sig",
    ]


def test_a_page_is_not_signed_beside_files_that_the_signature_does_not_cover(push, hub, tmp_path):
    private, _ = write_keys(tmp_path)
    push("--yes")
    hub.pages["me/mine"].files[".gitattributes"] = b"*.pt filter=lfs\n"
    words = ["--yes", "--sign", str(private), "--format"]
    refused = push(*words, "transformers").exception
    assert isinstance(refused, ConfigError) and "generate_cpu.py, meta_000001.json" in str(refused)
    assert "model.sig" not in hub.pages["me/mine"].files
    assert push(*words, "both").exit_code == 0 and "model.sig" in hub.pages["me/mine"].files


def test_safetensors_alone_hold_no_pickle(push, hub):
    assert push("--yes", "--public", "--format", "transformers").exit_code == 0
    page = hub.pages["me/mine"]
    assert not page.private and set(page.files) == _SAFE | {"README.md"}


def test_a_model_of_2026_goes_with_the_code_that_transformers_needs(push, hub, model):
    write_random_model(model, architecture="2026")
    code = {"configuration_nanochat2026.py", "modeling_nanochat2026.py"}
    assert push("--yes").exit_code == 0
    assert set(hub.pages["me/mine"].files) == _SAFE | _OWN | code | {"README.md"}
    assert push("--yes", "--format", "transformers", name="me/safe").exit_code == 0
    assert set(hub.pages["me/safe"].files) == _SAFE | code | {"README.md"}


def test_a_page_that_somebody_changes_meanwhile_stays_as_it_is(push, hub, model):
    assert push("--yes").exit_code == 0
    page = hub.pages["me/mine"]
    before = dict(page.files)
    (model / "README.md").write_text("---\nlicense: mit\n---\n# mine, changed\n")
    hub.meanwhile = lambda page: page.commits.append("by somebody else")
    refused = push("--yes")
    assert isinstance(refused.exception, SourceUnavailable)
    assert "A commit has happened" in str(refused.exception)
    assert page.files == before
    hub.meanwhile = None
    assert json.loads(push("--yes", "--json").stdout)["sent"] == ["README.md"]


def test_a_push_that_was_cut_off_goes_on(push, hub):
    hub.refused = 1
    cut = push("--yes")
    assert isinstance(cut.exception, SourceUnavailable) and "push again" in cut.exception.hint
    assert hub.pages["me/mine"].commits == []
    before = list(hub.sent)
    assert push("--yes").exit_code == 0
    assert len(hub.sent) == len(set(hub.sent)) and hub.sent[: len(before)] == before


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [
        ("mine", None, "not OWNER/NAME"),
        ("me/../x", None, "not OWNER/NAME"),
        ("me/mine", "hf_other", "refused"),
        ("others/mine", None, "refused"),
        ("me/mine", "", "no token"),
    ],
)
def test_what_cannot_be_pushed_is_refused_with_the_way_out(push, hub, monkeypatch, name, token, said):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    error = push("--yes", name=name).exception
    assert isinstance(error, ConfigError) and said in str(error) and error.hint
    assert hub.objects == {}


def test_a_private_page_is_not_taken_for_a_public_one(push, hub):
    push("--yes", "--format", "transformers")
    error = push("--yes", "--public").exception
    assert isinstance(error, ConfigError) and "is private" in str(error)


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "ghp_" + "b" * 36,
        "my_hf_" + "a" * 34,
        "github_pat_" + "11AB_" * 16,
        "glpat-" + "d" * 20,
        "AKIA" + "C" * 16,
        "ASIA" + "C" * 16,
        "AIza" + "E" * 35,
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "https://user:word@host/x",
        "the value of a variable: correct-horse-battery",
    ],
)
def test_a_text_with_a_secret_is_refused_and_not_shown(tmp_path, secret):
    (tmp_path / "README.md").write_text(f"# title\nsee {secret}\n")
    with pytest.raises(ConfigError, match="line 2") as error:
        refuse_secrets(tmp_path, ["README.md"], {"MY_TOKEN": "correct-horse-battery"})
    assert secret not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_text_in_which_no_secret_would_be_found_is_refused(tmp_path, encoding):
    (tmp_path / "README.md").write_bytes(f"Grüße\nhf_{'a' * 34}".encode(encoding))
    with pytest.raises(ConfigError, match=r"README\.md is not text in UTF-8"):
        refuse_secrets(tmp_path, ["README.md"], {})
    (tmp_path / "README.md").write_bytes("hf_aaaaaa".encode("utf-16-le"))
    with pytest.raises(ConfigError, match="UTF-8"):
        refuse_secrets(tmp_path, ["README.md"], {})


def test_a_secret_in_the_card_stops_a_push(push, hub, model):
    (model / "README.md").write_text("hf_" + "a" * 34)
    assert isinstance(push("--yes").exception, ConfigError) and hub.pages == {}


def test_a_card_that_leads_elsewhere_is_not_followed(push, hub, model, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    (model / "README.md").unlink()
    (model / "README.md").symlink_to(tmp_path / "diary.txt")
    assert isinstance(push("--yes").exception, ConfigError) and hub.pages == {}
    blob = tmp_path / hashlib.sha256(b"# card of a store\n").hexdigest()
    blob.write_text("# card of a store\n")
    (model / "README.md").unlink()
    (model / "README.md").symlink_to(blob)
    assert push("--yes").exit_code == 0
    assert hub.pages["me/mine"].files["README.md"] == b"# card of a store\n"


def test_a_commit_does_not_tell_where_the_model_was(push, hub, model):
    push("--yes")
    (message,) = hub.pages["me/mine"].commits
    assert str(model.parent) not in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--push", "me/mine"], "nobody is there"),
        (["--push", "mine", "--yes"], "not OWNER/NAME"),
        (["--push", "me/mine", "--yes", "--until", "pretrain"], "does not publish"),
        (["--yes"], "for what --push sends"),
        (["--push", "others/mine", "--yes", "--sign", "nowhere.pem"], "nowhere.pem"),
    ],
)
def test_a_push_after_a_run_is_refused_before_any_work(hub, tmp_path, monkeypatch, words, said):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    refused = CliRunner().invoke(app, ["run", "toy", *words])
    assert isinstance(refused.exception, ConfigError) and said in str(refused.exception)
    assert not list((tmp_path / "home").rglob("records/*/*")) and hub.pages == {}
