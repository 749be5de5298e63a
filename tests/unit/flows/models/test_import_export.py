"""Models go into the store once, whichever form they come in, and come out as they went in."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

from flows.models.find import open_engine, open_model
from flows.models.import_export import export_model, import_model
from flows.models.score import find_examinee, questions
from flows.store import Store
from nanochat.config import ModelConfig
from nanochat.errors import ConfigError, DataError, StoreError
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.formats.published import Choice
from nanochat.model.checkpoint import save_model
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

ANY = Choice()


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(ModelConfig(sequence_len=31, vocab_size=265, n_layer=2, n_head=3, n_kv_head=1, n_embd=12))
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        weight.data = torch.empty(weight.shape).normal_(generator=generator)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)})


@pytest.fixture
def published(tmp_path: Path, model: GPT, tokenizer: Tokenizer) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    state = model.state_dict()
    results = {"val_bpb": 1.25, "user_config": {"depth": 2}}
    write_nanochat_folder(
        folder, state=state, config=model.config, tokenizer=tokenizer, step=41, results=results
    )
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def put(store: Store, tmp_path: Path):
    return lambda folder, choice=ANY: import_model(store, tmp_path / "scratch", folder, choice)[0]


def export(store, ref, target, form="nanochat", layout="flat", choice=ANY, kind=None):
    return export_model(store, ref, target, form=form, layout=layout, choice=choice, kind=kind)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_files_are_imported_once_wherever_they_lie(put, store, published, tmp_path):
    first = put(published)
    moved = published.rename(tmp_path / "elsewhere")
    again = put(moved)
    assert (first.cached, again.cached) == (False, True)
    assert again.record.key == first.record.key
    assert first.record.metrics["step"] == 41
    assert [("import", first.record.key)] in store.roots().values()


def test_changed_weights_and_another_step_have_keys_of_their_own(put, published):
    keys = {put(published).record.key}
    (published / "meta_000041.json").rename(published / "meta_000042.json")
    (published / "model_000041.pt").rename(published / "model_000042.pt")
    keys.add(put(published).record.key)
    state = torch.load(published / "model_000042.pt")
    state["lm_head.weight"] += 1
    torch.save(state, published / "model_000042.pt")
    keys.add(put(published).record.key)
    assert len(keys) == 3


def test_an_import_is_exported_with_the_bytes_it_came_in(put, store, published, tmp_path):
    put(published)
    done = export(store, "import", tmp_path / "out/deep")
    assert contents(tmp_path / "out/deep") == contents(published)
    assert (done.step, dict(done.files)["tokenizer.pkl"]) == (
        41,
        (published / "tokenizer.pkl").stat().st_size,
    )


def test_a_round_through_transformers_format_loses_nothing(put, store, published, tmp_path):
    first = put(published).record
    export(store, "import", tmp_path / "theirs", form="transformers")
    second = put(tmp_path / "theirs").record
    assert second.key != first.key and second.digest == first.digest
    export(store, str(tmp_path / "theirs"), tmp_path / "back")
    assert contents(tmp_path / "back") == contents(published)


@pytest.mark.parametrize(
    ("form", "layout"),
    [("nanochat", "flat"), ("nanochat", "cache"), ("transformers", "flat"), ("gguf", "flat")],
)
def test_every_file_of_an_export_has_the_mode_that_the_umask_leaves(form, layout, store, published, tmp_path):
    export_model(store, str(published), tmp_path / "out", form=form, layout=layout, choice=ANY)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    before = os.umask(0)
    os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        path.name: 0o666 & ~before for path in files
    }


def test_the_cache_layout_is_upstreams_base_directory(put, store, published, tmp_path):
    export(store, str(published), tmp_path / "base", layout="cache")
    assert sorted(contents(tmp_path / "base")) == [
        "chatsft_checkpoints/d2/meta_000041.json",
        "chatsft_checkpoints/d2/model_000041.pt",
        "tokenizer/token_bytes.pt",
        "tokenizer/tokenizer.pkl",
    ]
    assert put(tmp_path / "base").record.metrics["step"] == 41


def test_an_imported_model_talks_as_its_folder_does(put, store, published):
    ref = f"import/{put(published).record.key[:12]}"
    prompt = [257, 72, 105]
    answers = {
        tuple(open_engine(store, name).generate(prompt, max_new_tokens=9)) for name in (ref, str(published))
    }
    assert len(answers) == 1


def test_to_talk_on_a_gpu_that_is_not_here_is_an_error_with_the_way_out(store, published, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is 'cuda' but no CUDA device was found") as raised:
        open_engine(store, str(published), device="cuda")
    assert raised.value.hint == "use device cpu"


@pytest.fixture
def trained(store: Store, tmp_path: Path, model: GPT, tokenizer: Tokenizer) -> Store:
    """Records as a run leaves them: a tokenizer and a pretrained model."""
    for name in ("tokenizer", "pretrain"):
        (tmp_path / name).mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    save_model(tmp_path / "pretrain", model)
    made = store.commit(
        stage="tokenizer", node="tokenizer", key="a" * 64, payload={}, folder=tmp_path / "tokenizer"
    )
    line = {"stage": "tokenizer", "node": "tokenizer", "key": "a" * 64, "digest": made.digest}
    store.commit(
        stage="pretrain",
        node="pretrain",
        key="b" * 64,
        payload={},
        folder=tmp_path / "pretrain",
        metrics={"steps": 63, "val/bpb": 1.75},
        inputs={"tokenizer": line},
    )
    return store


def test_a_trained_stage_is_exported_with_its_step_and_loss(trained, tmp_path, model):
    export(trained, "pretrain/b", tmp_path / "out", layout="cache")
    meta = json.loads((tmp_path / "out/base_checkpoints/d2/meta_000063.json").read_text())
    assert (meta["step"], meta["val_bpb"]) == (63, 1.75)
    back = open_model(trained, str(tmp_path / "out")).model
    assert all(torch.equal(back.state_dict()[name], w) for name, w in model.state_dict().items())


def test_a_stages_name_is_never_taken_for_a_folder_beside_the_user(trained, published, monkeypatch):
    published.rename(published.with_name("pretrain2"))
    monkeypatch.chdir(published.parent)
    assert (published.parent / "pretrain").is_dir()
    assert open_model(trained, "pretrain").step == 63
    with pytest.raises(DataError, match=r"pretrain/config\.json: model_type is None"):
        open_model(trained, "./pretrain")
    assert open_model(trained, "pretrain2").step == 41


def test_a_target_in_use_is_left_alone(store, published, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").write_text("mine")
    for target in (tmp_path / "used", tmp_path / "used/file"):
        with pytest.raises(ConfigError, match="exists already"):
            export(store, str(published), target)
    assert contents(tmp_path / "used") == {"file": b"mine"}
    (tmp_path / "empty").mkdir()
    export(store, str(published), tmp_path / "empty")
    assert contents(tmp_path / "empty") == contents(published)


def said(folder: Path) -> dict[str, Any]:
    """Return what the one GGUF file of a folder says of its origin."""
    (path,) = folder.glob("*.gguf")
    names = ("general.name", "general.license", "nanochat.source", "nanochat.digest")
    fields = GGUFReader(path).fields
    return {name.split(".")[1]: fields[name].contents() for name in names if name in fields}


def test_a_gguf_file_says_which_record_or_files_it_was_made_from(put, store, published, tmp_path):
    record = put(published).record
    export(store, "import", tmp_path / "a", form="gguf")
    assert said(tmp_path / "a") == {
        "name": "import",
        "source": f"import/{record.key}",
        "digest": record.digest,
    }
    (published / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: none\n", encoding="utf-8")
    export(store, str(published), tmp_path / "b", form="gguf", kind="f32")
    assert said(tmp_path / "b") == {
        "name": "published",
        "license": "apache-2.0",
        "source": "model_000041.pt",
        "digest": hashlib.sha256((published / "model_000041.pt").read_bytes()).hexdigest(),
    }
    assert sorted(contents(tmp_path / "b")) == ["Modelfile", "published-F32.gguf"]


def test_what_a_folder_is_called_cannot_act_on_who_reads_the_file(store, published, tmp_path):
    odd = published.rename(tmp_path / "m \x1b[31m")
    export(store, str(odd), tmp_path / "out", form="gguf", kind="q4_K")
    assert said(tmp_path / "out")["name"] == r"m \x1b[31m"
    assert sorted(contents(tmp_path / "out")) == ["Modelfile", "m-x1b-31m-Q4_K.gguf"]


def test_a_type_of_weights_is_for_gguf_alone(store, published, tmp_path):
    with pytest.raises(ConfigError, match=r"--type q8_0 is of a GGUF file's weights"):
        export(store, str(published), tmp_path / "x", kind="q8_0")
    assert not (tmp_path / "x").exists()


def test_an_export_that_fails_leaves_nothing(store, published, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("nanochat.formats.transformers_folder.write_tokenizer_json", fail)
    monkeypatch.setattr("nanochat.formats.gguf_weights.GGUFTensor.encoded", fail)
    for form in ("transformers", "gguf"):
        with pytest.raises(OSError, match="no space"):
            export(store, str(published), tmp_path / "out/theirs", form=form)
        assert list((tmp_path / "out").iterdir()) == []


def test_a_hostile_folder_leaves_no_record(put, store, published, tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    torch.save({"w": Payload()}, published / "model_000041.pt")
    with pytest.raises(DataError, match="the pickle asks for"):
        put(published)
    assert store.records() == [] and not (tmp_path / "ran").exists()


def test_choices_where_there_are_none_and_models_without_data_are_told(put, trained, published, tmp_path):
    with pytest.raises(ConfigError, match="nothing to choose"):
        open_model(trained, "pretrain", Choice(step=3))
    with pytest.raises(ConfigError, match="--layout cache"):
        export(trained, "pretrain", tmp_path / "x", form="transformers", layout="cache")
    with pytest.raises(StoreError, match="tokenizer/aaaaaaaaaaaa holds no model"):
        export(trained, "tokenizer", tmp_path / "x")
    put(published)
    for ref in ("import", str(published)):
        examinee = find_examinee(trained, ref)
        with (
            pytest.raises(StoreError, match=f"no problems for {ref}") as caught,
            questions(trained, examinee),
        ):
            pass
        assert "--until evaluate_base" in caught.value.hint
