"""What several presets share: shapes, prompts, the published chat data, and fine-tuning on it."""

from __future__ import annotations

from nanochat.config import (
    ComputeConfig,
    EvaluateConfig,
    MixtureEntry,
    ModelConfig,
    OptimizerConfig,
    SftConfig,
    TasksConfig,
    public_data,
)

FINEWEB_EDU = "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/{revision}/shard_{index:05d}.parquet"
SHARD_CHARACTERS = 250_000_000  # of both published corpora
CHARACTERS_PER_TOKEN = 4.8
DATA_SETS = (
    "HuggingFaceFW/fineweb-edu",
    public_data.SMOLTALK,
    public_data.MMLU,
    public_data.GSM8K,
    public_data.ARC,
)
BASE_PROMPTS = (
    "The capital of France is",
    "The chemical symbol of gold is",
    "If yesterday was Friday, then tomorrow will be",
    "The opposite of hot is",
    "The planets of the solar system are:",
    "My favorite color is",
    "If 5*x + 3 = 13, then x is",
)

# What published runs were trained and measured on; validation as upstream's.
HUB = TasksConfig(source="hub", toy=None)
CHAT_VALIDATION = (
    MixtureEntry(task="test"),
    MixtureEntry(task="mmlu", split="test", rows=5_200),
    MixtureEntry(task="gsm8k", split="test", rows=420),
)
FULL_EVALUATION = EvaluateConfig(prompts=BASE_PROMPTS)
QUESTIONS = ("Hello! How are you?", "What is the capital of France?")


def model_shape(
    depth: int, *, vocab_size: int, sequence_len: int, width_per_layer: int = 64, head_dim: int = 128
) -> ModelConfig:
    """Derive the transformer's shape from its depth: 64 channels a layer, heads of at most 128."""
    n_embd = depth * width_per_layer
    n_head = max(1, -(-n_embd // head_dim))
    return ModelConfig(
        sequence_len=sequence_len,
        vocab_size=vocab_size,
        n_layer=depth,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
    )


# Operation by operation, each addition, norm and conversion between the products passes over memory on its
# own; compiled they are two kernels a layer and direction, 63 GB in a step of d20 (`kernels.roofline`).
ON_GPUS = ComputeConfig(precision="bfloat16", compile=True)
OF_ALL_LENGTHS = ComputeConfig(precision="bfloat16")  # rows of many lengths would each be compiled anew


def sft_on_hub_data(optimizer: OptimizerConfig) -> SftConfig:
    """Return the published fine-tuning: 20,843 rows."""
    answers = (
        MixtureEntry(task="arc_easy"),
        MixtureEntry(task="arc_challenge"),
        MixtureEntry(task="gsm8k"),
        MixtureEntry(task="smoltalk", rows=10_000),
    )
    return SftConfig(
        mixture=answers,
        validation=(MixtureEntry(task="test", rows=3_200),),
        optimizer=optimizer,
        compute=OF_ALL_LENGTHS,
        prompts=QUESTIONS,
    )
