"""Which configuration a kernel gets: the table's, one that a GPU has shown to be faster, or one on trial."""

from __future__ import annotations

import pytest
import torch

from kernels import configs
from kernels.configs import KernelConfig, Row, find, row_for, trying

OTHER = KernelConfig(4, 2, {"ROWS": 8}, name="small")
KERNEL, DTYPE = "qk_norm_rotary_forward", torch.bfloat16


@pytest.fixture
def row(monkeypatch):
    monkeypatch.setattr(configs, "_arch", lambda: 90)
    row = row_for(KERNEL, DTYPE)
    monkeypatch.setitem(configs.VARIANTS, row, (OTHER,))
    return row


def test_a_device_uses_the_newest_row_that_is_not_newer_than_itself(row):
    assert row == Row(80, KERNEL, "any", 16)
    assert find(KERNEL, DTYPE) == configs.TABLE[row]


def test_a_chosen_variant_replaces_the_rows_own(row, monkeypatch):
    monkeypatch.setitem(configs.CHOSEN, row, "small")
    assert find(KERNEL, DTYPE) == OTHER


def test_a_variant_on_trial_replaces_the_chosen_one_and_only_inside_the_block(row, monkeypatch):
    with trying(**{KERNEL: "small"}):
        assert find(KERNEL, DTYPE) == OTHER
        with trying(**{KERNEL: configs.BASE}):
            assert find(KERNEL, DTYPE) == configs.TABLE[row]
        assert find(KERNEL, DTYPE) == OTHER
    assert find(KERNEL, DTYPE) == configs.TABLE[row]


def test_a_row_without_the_variant_on_trial_uses_its_own(row):
    with trying(**{KERNEL: "another"}):
        assert find(KERNEL, DTYPE) == configs.TABLE[row]


def test_names_of_variants_are_unique_and_chosen_ones_exist():
    for row in configs.TABLE:
        names = [config.name for config in configs.candidates(row)]
        assert len(names) == len(set(names))
        assert configs.CHOSEN.get(row, configs.BASE) in names
    assert set(configs.VARIANTS) <= set(configs.TABLE)
    assert set(configs.CHOSEN) <= set(configs.TABLE)


def test_blocks_of_dkvs_queries_fit_into_those_that_dq_leaves_numbers_for():
    for row in configs.TABLE:
        if row.kernel == "attention_dq":
            written = {config.tiles["BLOCK_M"] for config in configs.candidates(row)}
            read = {
                config.tiles["BLOCK_M"] for config in configs.candidates(row._replace(kernel="attention_dkv"))
            }
            assert max(read) <= min(written), row
