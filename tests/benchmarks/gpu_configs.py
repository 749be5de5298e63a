"""What the GPU benchmarks train: pretraining as recipes set it, and the same cut down for a dry run.

The recipes themselves read YAML, which a machine that only runs kernels may lack; a test holds these numbers
to theirs.
"""

from __future__ import annotations

from nanochat.config import ComputeConfig, ModelConfig, OptimizerConfig, PretrainConfig

_ON_GPUS = ComputeConfig(precision="bfloat16", compile=True)
CONFIGS = {
    "d20": PretrainConfig(compute=_ON_GPUS),
    "2026-d12": PretrainConfig(
        compute=_ON_GPUS,
        model=ModelConfig(
            architecture="2026", vocab_size=32_768, n_layer=12, n_head=6, n_kv_head=6, n_embd=768
        ),
        optimizer=OptimizerConfig(embedding_lr=0.3, unembedding_lr=0.008, weight_decay=0.28, grad_clip=None),
        steps=2_520,
        warmup_steps=40,
        warmdown_ratio=0.65,
        final_lr_frac=0.05,
        eval_tokens=80 * 524_288,
    ),
}
_TINY = {"sequence_len": 64, "vocab_size": 256, "n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 64}


def config_of(name: str, sizes: str) -> PretrainConfig:
    """Return a recipe's pretraining, or one of its kind that takes no time."""
    config = CONFIGS[name]
    if sizes == "full":
        return config
    return config.model_copy(
        update={"model": config.model.model_copy(update=_TINY), "batch_tokens": 16 * _TINY["sequence_len"]}
    )
