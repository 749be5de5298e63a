"""Only what is on the list is built; everything else ends the reading before it is looked up."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from nanochat.errors import DataError
from nanochat.formats import restricted_pickle

HERE = Path("there.pkl")
LIST = {("collections", "OrderedDict"): OrderedDict}


def test_plain_data_and_listed_names_are_read():
    content = OrderedDict(a=[1, 2.5, None, b"x"], b={("t", 1): "é"})
    assert restricted_pickle.load(pickle.dumps(content), HERE, LIST) == content


@pytest.mark.parametrize("protocol", range(6))
def test_other_names_are_refused_in_every_protocol(protocol):
    with pytest.raises(DataError, match=r"there\.pkl: the pickle asks for .*getcwd"):
        restricted_pickle.load(pickle.dumps(os.getcwd, protocol), HERE, LIST)


def test_references_out_of_the_file_are_refused_unless_asked_for():
    data = b"\x80\x02X\x01\x00\x00\x00aQ."
    with pytest.raises(DataError, match="an object outside of the file"):
        restricted_pickle.load(data, HERE, LIST)
    assert restricted_pickle.load(data, HERE, LIST, persistent=str.upper) == "A"


@pytest.mark.parametrize(
    "data", [b"", b"\x80", pickle.dumps([1, 2, 3])[:-2], b"0.", b"\x80\x04\x8e" + b"\xff" * 8]
)
def test_a_damaged_pickle_is_named(data):
    with pytest.raises(DataError, match=r"there\.pkl: not a whole pickle"):
        restricted_pickle.load(data, HERE, LIST)


def test_a_memo_larger_than_the_file_is_refused():
    with pytest.raises(DataError, match="memo slot 4294967295"):
        restricted_pickle.load(b"\x80\x02Nr\xff\xff\xff\xff.", HERE, LIST)
