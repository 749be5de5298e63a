"""The recipes that run without a GPU: `toy` on the built-in world, `laptop` on one real shard."""

from __future__ import annotations

from nanochat.config import (
    CardConfig,
    CorpusConfig,
    EvaluateConfig,
    MidtrainConfig,
    MixtureEntry,
    PretrainConfig,
    PublishConfig,
    Recipe,
    SftConfig,
    TasksConfig,
    TokenizerConfig,
    ToyWorldConfig,
)
from nanochat.recipes.shared import BASE_PROMPTS, FINEWEB_EDU, QUESTIONS, model_shape


def toy(depth: int = 4) -> Recipe:
    """The built-in world: no downloads, a CPU, a few minutes."""
    vocab_size = 1216
    world = ToyWorldConfig(documents_per_shard=8000, questions=6000)
    questions = ("Hello!", "What is 3 plus 4?")
    choices = ("arc_easy", "arc_challenge", "mmlu")
    tasks = (*choices, "gsm8k", "functions", "smalltalk")
    return Recipe(
        name="toy",
        depth=depth,
        corpus=CorpusConfig(source="toy", train_shards=2, toy=world),
        tasks=TasksConfig(source="toy", toy=world),
        tokenizer=TokenizerConfig(vocab_size=vocab_size, train_shards=1, max_chars=2_000_000),
        pretrain=PretrainConfig(
            # Two heads find words in lists sooner than four; odd depths have channels for heads of 32 alone.
            model=model_shape(
                depth,
                vocab_size=vocab_size,
                sequence_len=256,
                width_per_layer=32,
                head_dim=64 if depth % 2 == 0 else 32,
            ),
            batch_tokens=4 * 256,
            steps=550,
            warmdown_ratio=0.2,
            eval_every=110,
            eval_tokens=32 * 256,
            sample_every=275,
            prompts=("The capital of",),
            shuffle=False,  # look-ups come first
            documents_apart=True,
        ),
        midtrain=MidtrainConfig(
            mixture=tuple(MixtureEntry(task=t, rows=600 if t in choices else 1400) for t in tasks),
            batch_tokens=8 * 256,
            eval_every=50,
            sample_every=100,
            prompts=questions,
        ),
        # Here alone the letter of a choice is all of a row's loss: most rows are for that.
        sft=SftConfig(
            mixture=tuple(MixtureEntry(task=t, rows=3000 if t in choices else 1200) for t in tasks),
            init_lr_frac=0.3,
            batch_rows=48,
            eval_every=50,
            sample_every=100,
            prompts=questions,
        ),
        evaluate=EvaluateConfig(
            max_problems=100, core_max_problems=100, max_new_tokens=64, bpb_tokens=64 * 256
        ),
        publish=PublishConfig(
            title="nanochat toy",
            datasets=("built-in toy world",),
            card=CardConfig(corpus="sentences about a small invented world"),
        ),
    )


def laptop(depth: int = 4) -> Recipe:
    """Real English text on a CPU: about an hour on two cores."""
    vocab_size = 4096
    return Recipe(
        name="laptop",
        depth=depth,
        corpus=CorpusConfig(source=FINEWEB_EDU, revision="main", train_shards=1, val_shard="1822"),
        tasks=TasksConfig(source="toy"),
        tokenizer=TokenizerConfig(vocab_size=vocab_size, train_shards=1, max_chars=50_000_000),
        pretrain=PretrainConfig(
            model=model_shape(
                depth, vocab_size=vocab_size, sequence_len=512, width_per_layer=48, head_dim=64
            ),
            batch_tokens=16 * 512,
            steps=600,
            eval_every=50,
            eval_tokens=32 * 512,
            sample_every=150,
            prompts=BASE_PROMPTS[:3],
        ),
        midtrain=MidtrainConfig(batch_tokens=16 * 512, eval_every=50, sample_every=100, prompts=QUESTIONS),
        sft=SftConfig(batch_rows=32, init_lr_frac=0.1, eval_every=100, sample_every=200, prompts=QUESTIONS),
        evaluate=EvaluateConfig(
            max_problems=50,
            core_max_problems=20,
            max_new_tokens=96,
            bpb_tokens=64 * 512,
            prompts=BASE_PROMPTS[:5],
        ),
        publish=PublishConfig(title="nanochat laptop"),
    )
