"""Counts of parameters and operations against the published ones, and peaks by the names drivers report."""

from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.flops import flops_per_token, parameter_count, parameter_counts, peak_flops, tensor_count
from nanochat.model.gpt import GPT


def classic(depth: int) -> ModelConfig:
    heads = max(1, -(-depth * 64 // 128))
    return ModelConfig(n_layer=depth, n_head=heads, n_kv_head=heads, n_embd=64 * depth)


def july(depth: int) -> ModelConfig:
    shape = classic(depth).model_dump() | {"architecture": "2026", "vocab_size": 32_768}
    return ModelConfig.model_validate(shape)


CLASSIC = {
    4: 36_700_160,
    6: 60_948_480,
    12: 185_597_952,
    20: 560_988_160,
    26: 1_081_999_360,
    32: 1_879_048_192,
}
JULY = {
    6: 73_531_538,
    12: 286_261_730,
    16: 536_871_738,
    20: 896_533_746,
    24: 1_384_122_122,
    26: 1_681_786_938,
    32: 2_818_575_450,
}
PUBLISHED = [(classic(depth), n) for depth, n in CLASSIC.items()] + [(july(d), n) for d, n in JULY.items()]


@pytest.mark.parametrize(
    ("config", "parameters"), PUBLISHED, ids=[f"{c.architecture} d{c.n_layer}" for c, _ in PUBLISHED]
)
def test_parameter_counts_are_the_published_ones(config: ModelConfig, parameters: int) -> None:
    with torch.device("meta"):
        model = GPT(config)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert parameter_count(config) == parameters
    assert tensor_count(config) == len(model.state_dict())


@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_each_kind_has_as_many_parameters_as_the_model_groups(architecture: str) -> None:
    shape = {"sequence_len": 9, "vocab_size": 97, "n_layer": 3, "n_head": 6, "n_kv_head": 2, "n_embd": 36}
    config = ModelConfig.model_validate({"architecture": architecture, **shape})
    groups = GPT(config).parameter_groups()
    assert {k: sum(p.numel() for p in g.values()) for k, g in groups.items()} == parameter_counts(config)


def test_classic_flops_per_token_are_the_published_ones() -> None:
    assert flops_per_token(classic(20)) == 3_491_758_080
    assert flops_per_token(classic(32)) == pytest.approx(1.207960e10, rel=5e-7)


@pytest.mark.parametrize(
    ("depth", "flops"),
    [
        (6, 1.6751e8),
        (12, 7.5970e8),
        (16, 1.5855e9),
        (20, 2.8862e9),
        (24, 4.7752e9),
        (26, 5.9911e9),
        (32, 1.0771e10),
    ],
)
def test_flops_per_token_of_2026_are_the_published_ones(depth: int, flops: float) -> None:
    assert flops_per_token(july(depth)) == pytest.approx(flops, rel=5e-5)  # published with five digits
    assert flops_per_token(july(20)) == 2_886_212_784


def test_a_window_longer_than_the_context_costs_no_more_than_the_context() -> None:
    shape = july(6).model_dump() | {"sequence_len": 63}
    short, whole = (ModelConfig.model_validate(shape | {"window_pattern": p}) for p in ("S", "L"))
    assert flops_per_token(short) == flops_per_token(whole)


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
