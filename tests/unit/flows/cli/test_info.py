"""`nanochat info` against what is worked out directly from the files."""

from __future__ import annotations

import json
import math

import pytest
import torch

from flows.cli.info import info
from nanochat.errors import DataError
from nanochat.evals.weight_cost import plain_text
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.checkpoint import load_model
from nanochat.model.inference_weights import KINDS, use_weights
from nanochat.tokenizer.tokenizer import Tokenizer

LENGTH = 64  # context of the models in the store


@pytest.fixture
def printed(small_store, capsys):
    def run(*args, **options):
        info(*args, store=str(small_store.root / "store"), **options)
        return capsys.readouterr()

    return run


@pytest.fixture
def asked(printed):
    return lambda *args, **options: json.loads(printed(*args, as_json=True, **options).out)


@pytest.fixture
def tokenizer(small_store):
    return Tokenizer.load(small_store.root / "tokenizer")


def worked_out(model, document, kind):
    """Return bits per byte of one document, context by context, and the likeliest tokens."""
    use_weights(model, kind)
    nats, likeliest = 0.0, []
    for start in range(0, len(document) - 1, LENGTH):
        part = document[start : start + LENGTH + 1]
        with torch.inference_mode():
            logits = model(torch.tensor([part[:-1]]))[0]
        nats -= float(logits.log_softmax(-1)[range(len(part) - 1), part[1:]].sum())
        likeliest += logits.argmax(-1).tolist()
    return nats / (math.log(2) * (len(document) - 1)), likeliest  # a byte a token


def test_each_kind_of_weights_is_measured_on_a_file(asked, small_store, tokenizer, tmp_path):
    text = tmp_path / "held out.txt"
    text.write_text("The river runs down to the sea, ünder the bridge. " * 3, encoding="utf-8")
    found = asked("sft", text=text)
    document = [tokenizer.special("bos"), *tokenizer.encode(text.read_text(encoding="utf-8"))]
    assert found["text"] == {
        "source": str(text),
        "tokens": len(document) - 1,
        "bytes": len(text.read_bytes()),
    }
    assert list(found["weights"]) == list(KINDS)
    _, reference = worked_out(load_model(small_store.root / "sft"), document, "float32")
    for kind, cost in found["weights"].items():
        loss, likeliest = worked_out(load_model(small_store.root / "sft"), document, kind)
        flips = sum(a != b for a, b in zip(likeliest, reference, strict=True))
        assert cost["bits_per_byte"] == pytest.approx(loss, rel=1e-5)
        assert (cost["flipped_tokens"], cost["flipped_share"]) == (flips, flips / len(reference))
    assert len({cost["bits_per_byte"] for cost in found["weights"].values()}) > 2


def test_a_model_of_the_store_is_measured_on_the_validation_text_of_its_training(asked, small_store):
    tokens = small_store.store.resolve("tokenize")
    found = asked("sft", tokens=100)
    assert found["text"]["source"] == f"the validation text of its training, tokenize/{tokens.key[:12]}"
    assert (found["text"]["tokens"], found["text"]["bytes"]) == (100, 100)


def test_a_folder_is_measured_on_the_built_in_text_and_described(asked, small_store, tokenizer, tmp_path):
    model = load_model(small_store.root / "sft")
    write_nanochat_folder(
        tmp_path, state=model.state_dict(), config=model.config, tokenizer=tokenizer, step=7, results={}
    )
    found = asked(str(tmp_path))
    assert found["text"]["source"] == "a built-in English text"
    assert found["text"]["bytes"] == len(plain_text().encode())
    [weights] = tmp_path.glob("model_*.pt")
    assert found["files"] == [{"path": weights.name, "size": weights.stat().st_size}]
    numbers = sum(weight.numel() for weight in model.parameters())
    assert (found["step"], found["parameters"]["total"], found["vocab_size"]) == (7, numbers, 265)
    assert found["weights"]["float32"]["memory_bytes"] == 4 * numbers
    assert found["weights"]["bfloat16"]["memory_bytes"] == 2 * numbers


def test_people_read_a_line_for_each_kind_of_weights_and_what_was_measured(printed):
    out, err = printed("sft", tokens=50)
    lines = out.splitlines()
    assert lines[0].startswith("model         sft/") and "context       64 tokens" in lines
    table = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in table] == ["weights", *KINDS]
    assert table[1].endswith("+0.0000  0 of 50 (0.00%)")
    assert err.startswith("measuring on 50 tokens, ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe bytes"])
def test_a_file_without_text_is_refused(printed, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=r"file (is not text|holds no text)"):
        printed("sft", text=tmp_path / "file")
