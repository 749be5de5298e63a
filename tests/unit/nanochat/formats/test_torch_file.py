"""Weights files from elsewhere: sound ones are read, all others are refused by name and run nothing."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from nanochat.errors import DataError
from nanochat.formats.torch_file import read_weights


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_000003.pt"


def refused(path, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_state_dicts_parameters_and_shared_tensors_are_read(path):
    shared = torch.randn(5, 3, dtype=torch.bfloat16)
    state = OrderedDict(
        a=torch.nn.Parameter(torch.randn(7)), b=shared, c=shared[2:], d=torch.ones(2).double()
    )
    state._metadata = {"": {"version": 1}}  # as module.state_dict() leaves it
    torch.save(state, path)
    read = read_weights(path)
    assert list(read) == ["a", "b", "c", "d"]
    assert all(torch.equal(read[name], weight) for name, weight in state.items())
    assert read["b"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "nest", [lambda x: x, lambda x: {"w": x}, lambda x: {"w": torch.ones(3), "x": [{1: x}]}]
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_an_archive_is_refused_and_runs_nothing(path, payload, nest, legacy):
    torch.save(nest(payload), path, _use_new_zipfile_serialization=not legacy)
    refused(path, "bare pickle" if legacy else "the pickle asks for")


def test_a_plain_pickle_is_refused_and_runs_nothing(path, payload):
    path.write_bytes(pickle.dumps(payload))
    refused(path, "bare pickle")


def test_a_text_pickle_is_refused_and_runs_nothing(path, payload):
    path.write_bytes(pickle.dumps(payload, protocol=0))
    refused(path, "is not a torch archive")


def test_code_in_the_state_of_an_ordered_dict_is_refused(path, payload):
    state = OrderedDict(w=torch.ones(3))
    state.extra = payload
    torch.save(state, path)
    refused(path, "the pickle asks for")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_cut_off_file_is_named(path, part):
    torch.save({"w": torch.randn(63, 5)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refused(path, "is not a whole torch archive")


def test_a_flipped_bit_is_found(path):
    torch.save({"w": torch.full((999,), 3.0)}, path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.full((9,), 3.0).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(whole)
    refused(path, "does not match its checksum")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!doctype html><title>Not found</title>", "is not a torch archive: it begins with"),
        (b"PK\x03\x04" + bytes(100), "is not a whole torch archive"),
    ],
)
def test_other_files_under_its_name_are_named_for_what_they_are(path, content, reason):
    path.write_bytes(content)
    refused(path, reason)


def test_a_safetensors_file_and_a_foreign_zip_are_named(path):
    save_file({"w": torch.ones(3)}, path)
    refused(path, "is a safetensors file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../etc/passwd", "x")
    refused(path, "zip archive, but not one that torch.save wrote")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "holds nothing"),
        ([torch.ones(2)], "holds a list, not named tensors"),
        (torch.ones(2), "one tensor without a name"),
        ({"step": 3, "w": torch.ones(2)}, "holds a int under 'step'"),
        ({"model": {"w": torch.ones(2)}}, "holds a dict under 'model'"),
        ({"w": torch.arange(3)}, "w is of type long"),
        ({"w": torch.ones(2, dtype=torch.bool)}, "w is of type bool"),
    ],
)
def test_what_is_no_table_of_weights_is_named(path, content, reason):
    torch.save(content, path)
    refused(path, reason)


def repacked(path, change, compression=zipfile.ZIP_STORED):
    """Write an archive anew, its pickle changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_a_shape_larger_than_the_file_is_refused(path):
    torch.save({"w": torch.ones(1).expand(10**9, 10**9)}, path)  # stride 0: four bytes on disk
    refused(path, r"w has shape \(1000000000, 1000000000\), .* but only 1 are in the file")


def test_many_names_for_the_same_bytes_are_refused(path):
    same = torch.ones(10**5)
    torch.save({f"w{i}": same for i in range(50)}, path)
    refused(path, "bytes of weights are declared in a file of")


def test_a_storage_that_claims_more_than_it_has_is_refused(path):
    torch.save({"w": torch.ones(200)}, path)
    repacked(path, lambda data: data.replace(b"K\xc8", b"M\xc8\x10"))  # 200 numbers become 4,296
    refused(path, "w has 800 bytes, its description says 17,184")


def test_compressed_parts_are_refused(path):
    torch.save({"w": torch.zeros(10**5)}, path)
    repacked(path, lambda data: data, zipfile.ZIP_DEFLATED)
    refused(path, "compressed or encrypted")


def test_an_endless_memo_is_refused(path):
    torch.save({"w": torch.ones(2)}, path)
    repacked(path, lambda data: data[:-1] + b"r\xff\xff\xff\x7f.")
    refused(path, "memo slot 2147483647")


def test_a_program_is_refused(path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    path.write_bytes(buffer.getvalue())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", b"x")
    refused(path, "TorchScript program")


def test_a_folder_or_pipe_is_not_opened(path):
    path.mkdir()
    refused(path, "is not a regular file")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "uint16", "int64", "complex64"])
def test_numbers_of_another_type_are_named_with_the_types_that_are_read(path, kind):
    torch.save({"w": torch.zeros(4).to(getattr(torch, kind))}, path)
    with pytest.raises(DataError, match=r"w is of type \w+; weights are float32, bfloat16") as caught:
        read_weights(path)
    assert "code" not in str(caught.value) + caught.value.hint and "bfloat16" in caught.value.hint


def test_tensors_that_are_not_plain_are_not_called_code(path):
    torch.save({"w": torch.eye(3).to_sparse()}, path)
    with pytest.raises(DataError, match="the pickle asks for torch") as caught:
        read_weights(path)
    assert caught.value.hint.startswith("only plain tensors are read")
