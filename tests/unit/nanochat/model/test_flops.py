"""Counts of parameters and operations against published ones, and peaks by the names that drivers report."""

from __future__ import annotations

import pytest

from nanochat.config import ModelConfig
from nanochat.model.flops import parameter_count, peak_flops, tensor_count
from nanochat.model.gpt import GPT
from nanochat.recipes import model_shape


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(4, 36_700_160), (6, 60_948_480), (12, 185_597_952), (26, 1_081_999_360), (32, 1_879_048_192)],
)
def test_parameters_of_the_published_depths(depth, parameters):
    assert parameter_count(model_shape(depth, vocab_size=65_536, sequence_len=2048)) == parameters


@pytest.mark.parametrize("architecture", ["classic", "2026"])
@pytest.mark.parametrize("n_layer", [1, 2, 5])
def test_counts_are_those_of_a_real_model(architecture, n_layer):
    config = ModelConfig(
        architecture=architecture, sequence_len=16, vocab_size=99, n_layer=n_layer, n_head=6, n_kv_head=2,
        n_embd=48,
    )  # fmt: skip
    state = GPT(config).state_dict()
    assert tensor_count(config) == len(state)
    assert parameter_count(config) == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", 71),
    ],
)
def test_known_devices_have_their_peak(name, tflops):
    assert peak_flops(name) == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA L40",  # not an L4
        "NVIDIA GH200 480GB",  # not an H200
        "NVIDIA H200 NVL",  # slower than the H200
        "NVIDIA H20",
        "NVIDIA A10",
        "NVIDIA A100X",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",  # a seventh of it
        "AMD Instinct MI300A",
        "Tesla V100-SXM2-16GB",
        "cpu",
        "",
    ],
)
def test_other_devices_are_unknown_and_never_a_wrong_number(name):
    assert peak_flops(name) is None
