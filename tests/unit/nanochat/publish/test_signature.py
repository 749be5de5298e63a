"""A signed folder is as it was signed, or each file that is not is named."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)  # fmt: skip

from nanochat.errors import ConfigError, DataError
from nanochat.publish.signature import FILE_NAME, check, is_encrypted, sign
from tests.support.signing_keys import write_keys

FILES = {"README.md": b"# a model\n", "model.pt": bytes(range(256)) * 40, "sub/tokenizer.json": b"{}"}


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path)


@pytest.fixture
def folder(tmp_path, keys):
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sign(folder, keys[0])
    return folder


def test_a_signature_is_valid_here_and_for_the_package_that_others_use(folder, keys):
    assert check(folder, keys[1]).files == tuple(sorted(FILES))
    words = [
        "verify",
        "key",
        str(folder),
        "--signature",
        str(folder / FILE_NAME),
        "--public_key",
        str(keys[1]),
    ]
    done = subprocess.run([sys.executable, "-m", "model_signing", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / ".gitattributes").write_text("*.pt filter=lfs\n")  # a clone from a hub has it
    assert check(folder, keys[1]).files == tuple(sorted(FILES))


@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_of_any_file_is_named(folder, keys, name):
    content = bytearray(FILES[name])
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"model: {name} was changed after it was signed$"):
        check(folder, keys[1])


def test_files_that_are_missing_or_new_are_named(folder, keys):
    (folder / "model.pt").rename(folder / "other.pt")
    with pytest.raises(DataError, match=r"model\.pt is missing; other\.pt was not signed$"):
        check(folder, keys[1])


def test_a_name_with_a_line_break_writes_no_line_of_its_own(folder, keys):
    (folder / "x\n4 files are as they were signed").write_text("evil")
    with pytest.raises(DataError, match=r"model: x\\n4 files are as they were signed was not signed$"):
        check(folder, keys[1])


def test_a_signature_that_is_a_link_is_not_called_missing(folder, keys, tmp_path):
    (folder / FILE_NAME).rename(tmp_path / "blob")
    (folder / FILE_NAME).symlink_to(tmp_path / "blob")  # as in a hub's cache
    with pytest.raises(DataError, match="is a link"):
        check(folder, keys[1])


def test_a_link_is_neither_signed_nor_followed(folder, keys, tmp_path):
    (tmp_path / "secret").write_text("of the reader")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="link"):
        check(folder, keys[1])
    with pytest.raises(DataError, match="link"):
        sign(folder, keys[0])
    (folder / "link").unlink()
    check(folder, keys[1])  # the failed attempt has left the signature alone


def test_what_is_no_file_is_named_and_never_waited_for(folder, keys):
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match=r"model: Cannot use '.*/pipe' as file or directory\.$"):
        check(folder, keys[1])


def test_another_key_and_no_signature_are_refused(folder, keys, tmp_path):
    _, other = write_keys(tmp_path, "other")
    with pytest.raises(DataError, match="not made with this key"):
        check(folder, other)
    (folder / FILE_NAME).unlink()
    with pytest.raises(DataError, match="not signed"):
        check(folder, keys[1])


def test_a_forged_signature_is_refused_whatever_it_holds(folder, keys):
    path = folder / FILE_NAME
    bundle = json.loads(path.read_bytes())
    (folder / "model.pt").write_bytes(b"evil")
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["serialization"]["ignore_paths"].append("model.pt")
    forged = bundle | {
        "dsseEnvelope": bundle["dsseEnvelope"]
        | {"payload": base64.b64encode(json.dumps(statement).encode()).decode()}
    }
    unsigned = bundle | {"dsseEnvelope": bundle["dsseEnvelope"] | {"signatures": []}}
    contents = [forged, unsigned, {}, [], bundle | {"verificationMaterial": {}}]
    for content in [json.dumps(each).encode() for each in contents] + [b"", b"\xff\x00", b"[" * 10_000]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"signature|was changed"):
            check(folder, keys[1])


def test_a_signature_that_leaves_files_out_is_refused_even_from_the_owner(folder, keys):
    from model_signing import hashing, signing

    (folder / "run.py").write_text("evil")
    config = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["run.py", FILE_NAME]))
    config.sign(folder, folder / FILE_NAME)
    with pytest.raises(DataError, match=r"leaves out run\.py"):
        check(folder, keys[1])


def of_an_older_form(statement):
    """Return it as model-signing wrote it before 1.0."""
    named = statement["predicate"]["resources"]
    subjects = [{"name": each["name"], "digest": {"sha256": each["digest"]}} for each in named]
    return {"predicateType": "https://model_signing/Digests/v0.1", "subject": subjects}


def that_ignores(paths):
    def edit(statement):
        statement["predicate"]["serialization"]["ignore_paths"] = paths
        return statement

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (of_an_older_form, "has the form"),
        (that_ignores([5]), "leaves out 5"),
        (that_ignores([["x"]]), "leaves out"),
        (that_ignores(None), "cannot be read"),
    ],
)
@pytest.mark.parametrize("changed", [False, True])
def test_a_statement_of_another_form_is_refused_even_from_the_owner(folder, keys, edit, said, changed):
    path = folder / FILE_NAME
    bundle = json.loads(path.read_bytes())
    envelope = bundle["dsseEnvelope"]
    payload = json.dumps(edit(json.loads(base64.b64decode(envelope["payload"])))).encode()
    private = load_pem_private_key(keys[0].read_bytes(), None)
    enclosed = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)
    signature = private.sign(enclosed, ec.ECDSA(hashes.SHA256()))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    path.write_text(json.dumps(bundle))
    if changed:
        (folder / "model.pt").write_bytes(b"evil")
    with pytest.raises(DataError, match="was changed" if changed and said.startswith("leaves") else said):
        check(folder, keys[1])


def test_a_password_is_the_bytes_that_were_given(folder, keys, tmp_path):
    raw = "für mich".encode("latin-1")  # no UTF-8, and legal in an environment
    private = load_pem_private_key(keys[0].read_bytes(), None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(raw))
    (tmp_path / "locked.pem").write_bytes(locked)
    sign(folder, tmp_path / "locked.pem", os.fsdecode(raw))
    assert check(folder, keys[1]).files == tuple(sorted(FILES))


def test_a_key_that_cannot_be_used_is_refused_with_how_to_make_one(folder, tmp_path, keys):
    locked, public = write_keys(tmp_path, "locked", password="secret")
    wrong_kind, its_public = write_keys(tmp_path, "rsa", curve=False)
    assert (is_encrypted(locked), is_encrypted(keys[0])) == (True, False)
    for use in (
        lambda: sign(folder, locked),
        lambda: sign(folder, locked, "wrong"),
        lambda: sign(folder, wrong_kind),
        lambda: sign(folder, keys[1]),
        lambda: sign(folder, tmp_path / "none"),
        lambda: check(folder, its_public),
        lambda: check(folder, keys[0]),
    ):
        with pytest.raises(ConfigError) as error:
            use()
        assert "openssl" in error.value.hint and "secret" not in str(error.value)
    check(folder, keys[1])
    sign(folder, locked, "secret")
    check(folder, public)
