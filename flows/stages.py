"""One declaration per stage: what it is called, which function makes it, what it needs, how it is shown.

No logic here. `flows.dag` says which stages depend on which; raise a stage's `version` when the same inputs
should give a different result. `docs/adding-a-stage.md` shows how one is added.
"""

from __future__ import annotations

from flows.stage import Stage

# Downloads wait for the network, and a source must not be asked for everything at once.
DOWNLOAD = Stage(name="download", version=3, run="nanochat.data.sources.corpus:download_shard", at_once=8)
TASKS = Stage(name="tasks", version=3, run="nanochat.data.sources.chat_data:download_tasks")
TOKENIZER = Stage(name="tokenizer", version=2, run="nanochat.tokenizer.train:train_tokenizer")
TOKENIZE = Stage(name="tokenize", version=2, run="nanochat.data.text.tokenize:tokenize_shard", holds="tokens")
CONTAMINATION = Stage(
    name="contamination",
    version=2,
    run="nanochat.evals.contamination.search:find_overlap",
    reads_core=True,
    holds="overlap",
)
RENDER = Stage(
    name="render",
    version=3,
    run="nanochat.data.chat.chat_tokens:render_chat",
    one_of="mixtures",
    holds="conversations",
)
EVALUATE_BASE = Stage(
    name="evaluate_base",
    version=4,
    run="nanochat.evals.evaluate:evaluate_base",
    resources="gpu",
    spreads=True,
    continues=True,
    reads_core=True,
)
EVALUATE_MID = Stage(
    name="evaluate_mid",
    version=4,
    run="nanochat.evals.evaluate:evaluate_chat",
    resources="gpu",
    spreads=True,
    continues=True,
)
EVALUATE_SFT = Stage(
    name="evaluate_sft",
    version=4,
    run="nanochat.evals.evaluate:evaluate_chat",
    resources="gpu",
    spreads=True,
    continues=True,
)
PRETRAIN = Stage(
    name="pretrain",
    version=4,
    run="nanochat.train.pretrain:pretrain",
    resources="gpu",
    spreads=True,
    continues=True,
    attachments=("throughput.jsonl",),
    title="Pretraining",
    upstream="base",
    evaluated_by=EVALUATE_BASE,
)
MIDTRAIN = Stage(
    name="midtrain",
    version=7,
    run="nanochat.train.midtrain:midtrain",
    resources="gpu",
    spreads=True,
    continues=True,
    attachments=("throughput.jsonl",),
    title="Midtraining",
    upstream="mid",
    evaluated_by=EVALUATE_MID,
)
SFT = Stage(
    name="sft",
    version=7,
    run="nanochat.train.sft:sft",
    resources="gpu",
    spreads=True,
    continues=True,
    attachments=("throughput.jsonl",),
    title="Supervised fine-tuning",
    upstream="sft",
    evaluated_by=EVALUATE_SFT,
)
PUBLISH = Stage(
    name="publish",
    version=4,
    run="nanochat.publish.publish:publish",
    attachments=("README.md", "generate_cpu.py"),
    wants_lineage=True,
)

# Made by `nanochat import` from a folder, not by a recipe: so it is not one of the pipeline's stages below.
IMPORT = Stage(name="import", version=2, run="nanochat.formats.import_stage:import_folder")

# In the order in which a plan and its results show them.
STAGES = {
    stage.name: stage
    for stage in (
        DOWNLOAD,
        TASKS,
        TOKENIZER,
        CONTAMINATION,
        TOKENIZE,
        RENDER,
        PRETRAIN,
        MIDTRAIN,
        SFT,
        EVALUATE_BASE,
        EVALUATE_MID,
        EVALUATE_SFT,
        PUBLISH,
    )
}

# The stages that train the model, in order; and by upstream's name of the model, what evaluates it.
TRAINED = {stage.name: stage for stage in STAGES.values() if stage.upstream}
EVALUATIONS = {stage.upstream: stage.evaluated_by for stage in TRAINED.values() if stage.evaluated_by}
