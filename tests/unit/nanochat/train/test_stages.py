"""Pretraining, midtraining and SFT as stage functions: same bytes twice, when killed, and when stopped."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nanochat.chat.conversation import answer
from nanochat.chat.engine import Engine
from nanochat.config import (
    ChatDataConfig,
    MidtrainConfig,
    MixtureEntry,
    ModelConfig,
    PretrainConfig,
    Sampling,
    SftConfig,
)
from nanochat.data.chat.chat_tokens import ChatTokens, render_chat
from nanochat.errors import DataError, Interrupted, TrainingError
from nanochat.model.checkpoint import load_model, save_model
from nanochat.model.gpt import GPT
from nanochat.runtime import FolderRestartPoints, NullTracker, Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.midtrain import midtrain
from nanochat.train.pretrain import pretrain
from nanochat.train.sft import sft
from tests.support.calculating import SHOWN, calculating_model

MODEL = ModelConfig(sequence_len=48, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
CONFIGS = {
    "pretrain": PretrainConfig(
        model=MODEL,
        batch_tokens=240,
        steps=12,
        eval_every=5,
        eval_tokens=200,
        sample_every=6,
        prompts=("red é",),
    ),
    "midtrain": MidtrainConfig(batch_tokens=480, eval_every=5, sample_every=4, prompts=("one two",)),
    "sft": SftConfig(init_lr_frac=0.5, batch_rows=9, eval_every=5, sample_every=4, prompts=("one two",)),
}
STAGES = {"pretrain": pretrain, "midtrain": midtrain, "sft": sft}
CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_stages import run_stage
from nanochat.runtime import FolderRestartPoints, NullTracker, Runtime

class Killer(NullTracker):
    def log(self, metrics, *, step, total_steps):
        if step == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

root, out = Path(sys.argv[3]), Path(sys.argv[5])
keep = FolderRestartPoints(out / "restart")
runtime = Runtime(threads=1, restart_point_every_s=0.02, restart_points=keep, tracker=Killer())
run_stage(sys.argv[2], root, out / "killed", runtime)
"""


def run_stage(name: str, root: Path, out: Path, runtime: Runtime) -> dict[str, object]:
    out.mkdir(parents=True, exist_ok=True)
    inputs = {n: root / n for n in ("tokenizer", "train_tokens", "val_tokens", "chat", "model")}
    return STAGES[name](CONFIGS[name], inputs, out, runtime)


def deterministic_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "throughput.jsonl"}


@pytest.fixture(scope="module")
def inputs(stage_inputs: Path) -> Path:
    folder = stage_inputs / "model"
    if not folder.exists():
        folder.mkdir()
        model = GPT(MODEL)
        model.init_weights(torch.Generator().manual_seed(3))
        save_model(folder, model)
    return stage_inputs


@pytest.fixture(scope="module", params=list(STAGES))
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    out = tmp_path_factory.mktemp(request.param)
    metrics = run_stage(request.param, inputs, out, Runtime(threads=1))
    return request.param, out, metrics


class StopAt(NullTracker):
    """Asks the run to stop once a step was logged."""

    def __init__(self, step: int) -> None:
        self.step, self.stop, self.logged = step, threading.Event(), list[int]()

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        self.logged.append(step)
        if step == self.step:
            self.stop.set()


def test_a_second_run_gives_the_same_bytes(finished, inputs: Path, tmp_path: Path) -> None:
    name, out, _ = finished
    run_stage(name, inputs, tmp_path / "again", Runtime(threads=1))
    assert deterministic_files(tmp_path / "again") == deterministic_files(out)


def test_the_loss_falls_and_the_artifact_is_whole(finished) -> None:
    name, out, metrics = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, metrics["steps"] + 1))
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    measure = "val/loss" if name == "sft" else "val/bpb"
    measured = [line["step"] for line in lines if measure in line]
    assert measured == [*range(5, metrics["steps"], 5), metrics["steps"]]
    assert metrics[measure] == lines[-1][measure]
    assert load_model(out).config == MODEL
    sample = json.loads((out / "samples.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert sample["prompt"] == CONFIGS[name].prompts[0]
    assert metrics["tokens_per_s"] > 0 and metrics["parameters"] == 2 * 265 * 32 + 2 * (
        3 * 32 * 32 + 8 * 32 * 32
    )


@pytest.mark.slow  # starts an interpreter with torch
@pytest.mark.parametrize("name", ["pretrain", "sft"])
def test_killed_at_any_step_and_continued_it_ends_with_the_same_bytes(
    name: str, inputs: Path, tmp_path: Path
) -> None:
    run_stage(name, inputs, tmp_path / "whole", Runtime(threads=1))
    step = random.randint(2, 11)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CHILD, here, name, str(inputs), str(step), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    runtime = Runtime(threads=1, restart_points=FolderRestartPoints(tmp_path / "restart"))
    run_stage(name, inputs, tmp_path / "killed", runtime)
    assert deterministic_files(tmp_path / "killed") == deterministic_files(tmp_path / "whole"), step


def test_a_stop_keeps_the_step_and_the_next_run_goes_on_after_it(
    finished, inputs: Path, tmp_path: Path
) -> None:
    name, out, _ = finished
    tracker = StopAt(3)
    runtime = Runtime(
        threads=1,
        tracker=tracker,
        stop=tracker.stop,
        restart_points=FolderRestartPoints(tmp_path / "restart"),
    )
    with pytest.raises(Interrupted, match="step 3 is kept"):
        run_stage(name, inputs, tmp_path / "stopped", runtime)
    tracker.stop.clear()
    tracker.step = -1
    run_stage(name, inputs, tmp_path / "stopped", runtime)
    assert tracker.logged == list(range(1, len(tracker.logged) + 1))
    assert deterministic_files(tmp_path / "stopped") == deterministic_files(out)


def test_without_a_place_for_restart_points_a_stop_says_so(inputs: Path, tmp_path: Path) -> None:
    tracker = StopAt(2)
    with pytest.raises(Interrupted, match="nothing is kept"):
        run_stage("pretrain", inputs, tmp_path, Runtime(threads=1, tracker=tracker, stop=tracker.stop))


def test_a_restart_point_of_other_settings_is_refused(inputs: Path, tmp_path: Path) -> None:
    tracker = StopAt(2)
    runtime = Runtime(
        threads=1, tracker=tracker, stop=tracker.stop, restart_points=FolderRestartPoints(tmp_path / "r")
    )
    with pytest.raises(Interrupted):
        run_stage("pretrain", inputs, tmp_path, runtime)
    paths = {n: inputs / n for n in ("tokenizer", "train_tokens", "val_tokens")}
    other = CONFIGS["pretrain"].model_copy(update={"seed": 7})
    with pytest.raises(DataError, match="other settings"):
        pretrain(other, paths, tmp_path, replace(runtime, stop=threading.Event()))


class KeepTexts(NullTracker):
    """Keeps the texts that are shown, each with the state of the global random numbers at that time."""

    def __init__(self) -> None:
        self.texts, self.random_states = list[str](), list[torch.Tensor]()

    def log_text(self, text: str, *, step: int) -> None:
        self.texts.append(text)
        self.random_states.append(torch.get_rng_state())


def test_samples_use_the_calculator_read_as_chat_does_and_leave_training_alone(
    inputs: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(inputs / "tokenizer")
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", calculating_model(tokenizer, MODEL))
    paths = {"tokenizer": inputs / "tokenizer", "chat": inputs / "chat", "model": tmp_path / "model"}
    slow = CONFIGS["sft"].model_copy(update={"init_lr_frac": 1e-6, "sample_every": 3, "prompts": ()})
    shown = KeepTexts()
    before = torch.get_rng_state()
    for name, prompts in (("without", ()), ("with", ("What is 3+4?",))):
        (tmp_path / name).mkdir()
        config = slow.model_copy(update={"prompts": prompts})
        sft(config, paths, tmp_path / name, Runtime(threads=1, tracker=shown))
    assert set(shown.texts) == {f"What is 3+4? → {SHOWN}"} and len(shown.texts) > 2
    assert all(torch.equal(state, before) for state in shown.random_states)
    kept = (tmp_path / "with/samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["text"] for line in kept} == {SHOWN}
    for file in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    engine = Engine(load_model(tmp_path / "with"), tokenizer)
    assert answer(engine, "What is 3+4?", Sampling(temperature=0)) == SHOWN


def test_a_loss_that_is_not_finite_stops_the_run(inputs: Path, tmp_path: Path) -> None:
    model = load_model(inputs / "model")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.fill_(1e25)  # finite, but its square is not
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", model)
    paths = {"tokenizer": inputs / "tokenizer", "chat": inputs / "chat", "model": tmp_path / "model"}
    with pytest.raises(TrainingError, match="loss is nan in step 1; last restart point: none"):
        sft(CONFIGS["sft"], paths, tmp_path, Runtime(threads=1))


def test_conversations_too_long_or_without_an_answer_leave_every_loss_finite(
    inputs: Path, tmp_path: Path
) -> None:
    def talk(question: str, *answer: str) -> dict[str, object]:
        messages = [{"role": "user", "content": question}]
        return {"messages": messages + [{"role": "assistant", "content": text} for text in answer]}

    talks = [talk("red " * 50, "cut off"), talk("one", "blue " * 50), talk("three", "")] * 12
    (tmp_path / "tasks/conversations").mkdir(parents=True)
    (tmp_path / "tasks/conversations/odd.jsonl").write_text("".join(json.dumps(t) + "\n" for t in talks))
    mixture = (MixtureEntry(task="odd", repeat=2), MixtureEntry(task="odd"))
    chat = ChatDataConfig(mixture=mixture, max_tokens=MODEL.sequence_len)
    paths = {"tokenizer": inputs / "tokenizer", "tasks": tmp_path / "tasks"}
    render_chat(chat, paths, tmp_path / "chat", Runtime())
    paths |= {"chat": tmp_path / "chat", "model": inputs / "model"}
    for name, stage in (("midtrain", midtrain), ("sft", sft)):
        (tmp_path / name).mkdir()
        metrics = stage(CONFIGS[name], paths, tmp_path / name, Runtime(threads=1))
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert all(math.isfinite(line["train/loss"] + line["train/grad_norm"]) for line in lines)
        assert math.isfinite(metrics["val/loss" if name == "sft" else "val/bpb"])
        assert metrics["data/truncated"] > 0
    assert metrics["data/skipped"] > 0
    left, rows = metrics["data/left_over"], metrics["data/conversations"]
    assert left / rows > 0.05
    assert metrics["notes"][0].startswith(f"warning: {left} of {rows} rows left over in an epoch of")
    val = ChatTokens.open(tmp_path / "chat/val")
    unmeasured = sum(not val.mask[val.span(i)].any() for i in range(len(val)))
    said = f"{unmeasured} of {len(val)} rows to validate on have no answer within the context"
    assert metrics["notes"][1:] == ([said] if unmeasured else [])
