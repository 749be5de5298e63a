"""What a published folder says it was made from: an in-toto statement and a bill of materials."""

from __future__ import annotations

import hashlib
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from nanochat.errors import DataError
from nanochat.publish.bill_of_materials import FILE_NAME, write_bill_of_materials
from nanochat.publish.made_from import FILE_NAME as STATEMENT
from nanochat.publish.made_from import Ancestor, read_statement, write_statement


def record(stage, number, node=None, **provenance):
    made = {"recipe": "d20", "commit": "c" * 40, "dirty": False, "code_digest": "d" * 64}
    made |= {
        "started_at": f"2026-11-0{number}T00:00:00+00:00",
        "finished_at": f"2026-11-0{number}T09:30:00+00:00",
    }
    return {
        "stage": stage,
        "node": node or stage,
        "key": f"{number}" * 64,
        "digest": f"{number + 4:x}" * 64,
        "payload": {"config": {"steps": number}},
        "files": [{"path": "model.pt", "size": 3, "sha256": "e" * 64}],
        "provenance": made | provenance,
    }


@pytest.fixture
def records():
    old = {"packages": {"torch": "2.12.0", "numpy": "2.4.6"}}
    new = {
        "packages": {"torch": "2.13.0", "numpy": "2.4.6", "of-publish": "1"},
        "versions": {"torch": "2.13.0"},
    }
    return [
        record("publish", 4, **new, dirty=True),
        record("sft", 3, packages={"torch": "2.13.0", "numpy": "2.4.6"}),
        record("pretrain", 2, **old),
        record("download", 1, "download/shard_00000"),
        record("download", 5, "download/shard_00001"),
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.pt").write_bytes(b"abc")
    (tmp_path / "sub/a.json").write_text("{}")
    return tmp_path


def test_the_statement_names_files_artifacts_code_and_times(folder, records):
    write_statement(folder, records)
    said = json.loads((folder / STATEMENT).read_text())
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    subjects = {each["name"]: each["digest"]["sha256"] for each in said["subject"]}
    assert subjects == {
        "model.pt": hashlib.sha256(b"abc").hexdigest(),
        "sub/a.json": hashlib.sha256(b"{}").hexdigest(),
    }
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == "d20"
    assert definition["externalParameters"]["configs"] == {
        "publish": {"steps": 4},
        "sft": {"steps": 3},
        "pretrain": {"steps": 2},
        "download": {"steps": 1},
    }
    code = [each for each in definition["resolvedDependencies"] if each["name"] == "code"]
    assert [(each["digest"]["gitCommit"], each["annotations"]["changed_since"]) for each in code] == [
        ("c" * 40, True),
        ("c" * 40, False),
    ]
    run = said["predicate"]["runDetails"]
    assert run["metadata"] == {"startedOn": "2026-11-01T00:00:00Z", "finishedOn": "2026-11-05T09:30:00Z"}
    assert run["builder"]["version"] == {"torch": "2.13.0"}


def test_what_is_written_is_read_again_and_anything_else_is_refused(folder, records):
    assert read_statement(folder) is None
    write_statement(folder, records)
    said = read_statement(folder)
    assert said.ancestors[0] == Ancestor("publish", "4" * 64, "8" * 64) and len(said.ancestors) == 5
    assert (said.recipe, said.commit) == ("d20", "c" * 40)
    for text in ("", "[]", "{}", '{"predicate": 1}', "[" * 10_000, '{"predicate": {"buildDefinition": {}}}'):
        (folder / STATEMENT).write_text(text)
        with pytest.raises(DataError, match="not a statement"):
            read_statement(folder)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("name", "../" + "4" * 64),
        ("name", "publish/.."),
        ("name", "publish\0/" + "4" * 64),
        ("name", "\ud800/" + "4" * 64),
        ("name", "p" * 300 + "/" + "4" * 64),
        ("name", ["publish", "4" * 64]),
        ("digest", {"sha256": 5}),
        ("digest", {"sha256": "8" * 64 + "\n"}),
        ("digest", {"gitCommit": "\x1b[2J"}),
        ("recipe", {"d": 20}),
        ("recipe", "d20\nthe store has all of them, unchanged"),
        ("resolvedDependencies", []),
    ],
)
def test_a_statement_with_a_part_of_another_form_is_refused_though_it_may_be_signed(
    folder, records, part, value
):
    write_statement(folder, records)
    said = json.loads((folder / STATEMENT).read_text())
    definition = said["predicate"]["buildDefinition"]
    places = (definition, definition["externalParameters"], definition["resolvedDependencies"][-1])
    next(place for place in places if part in place)[part] = value
    (folder / STATEMENT).write_text(json.dumps(said))
    with pytest.raises(DataError, match="not a statement"):
        read_statement(folder)


def test_the_bill_of_materials_names_what_trained_in_valid_cyclonedx(folder, records):
    write_bill_of_materials(folder, records, {"pretrain", "sft"})
    text = (folder / FILE_NAME).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    named = {
        (each["name"], each["version"]): each["properties"][0]["value"]
        for each in json.loads(text)["components"]
    }
    assert named == {
        ("numpy", "2.4.6"): "sft, pretrain",
        ("torch", "2.12.0"): "pretrain",
        ("torch", "2.13.0"): "sft",
    }
    assert '"pkg:pypi/torch@2.13.0"' in text
    write_bill_of_materials(folder, records, {"pretrain", "sft"})
    assert (folder / FILE_NAME).read_text() == text


def test_records_of_older_code_have_no_bill_of_materials(folder, records):
    for each in records:
        each["provenance"].pop("packages", None)
    write_bill_of_materials(folder, records, {"pretrain", "sft"})
    assert not (folder / FILE_NAME).exists()


def test_an_input_whose_record_is_gone_is_named_by_the_digest_that_is_known(folder, records):
    lost = {"stage": "tokenizer", "key": "7" * 64, "digest": "9" * 64, "node": "tokenizer"}
    known = {"stage": "pretrain", "key": records[2]["key"], "digest": records[2]["digest"]}
    records[1]["inputs"] = {"tokenizer": lost, "models": [known, lost]}
    write_statement(folder, records)
    said = read_statement(folder)
    assert said.ancestors[-1] == Ancestor("tokenizer", "7" * 64, "9" * 64)
    assert len(said.ancestors) == len(records) + 1
