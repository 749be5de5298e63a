"""Text that is unlike the usual goes through download, tokenizer training and encoding with nothing lost."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config import ShardConfig, TokenizeConfig, TokenizerConfig
from nanochat.data.sources.corpus import download_shard
from nanochat.data.text.batches import PretrainBatches
from nanochat.data.text.token_shards import TokenShard
from nanochat.data.text.tokenize import tokenize_shard
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer

ONE = "Sphinx of black quartz, judge my vow: pack the box with five dozen liquor jugs."
OTHER = "How vexingly quick daft zebras jump over the lazy dog!"
LINES = ["first line", "second  line", "", "\tindented", "last"]
ODD = {
    "mixed line endings": [
        *(end.join(LINES) for end in ("\n", "\r\n", "\r", "\n\r", "\u2028", "\x85", "\v", "\f")),
        "a\r\nb\nc\rd\r\r\n\n\re",
        "\r\n" * 33 + "x" + "\r" * 33,
    ],
    "other languages": [
        "Съешь же ещё этих мягких французских булок, да выпей чаю.",
        "色は匂へど散りぬるを我が世誰ぞ常ならむ有為の奥山今日越えて浅き夢見じ酔ひもせず",
        "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق",
        "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार",
        "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
        "다람쥐 헌 쳇바퀴에 타고파 123 ４５６ ٧٨٩",
        "Příliš žluťoučký kůň úpěl ďábelské ódy e\u0301 n\u0303 👩‍👩‍👧‍👦 🇪🇺",
    ],
    "duplicate documents": [ONE] * 41 + [OTHER] + [ONE] * 7,
    "empty documents among others": ["", ONE, "", " ", "\n", OTHER, ""],
}
LONG_BYTES = 20_000_003  # more than two windows of the encoder


def through_all(folder, texts):
    """Return the opened token shard of some documents and the tokenizer that was trained on them."""
    source = folder / "source.parquet"
    pq.write_table(pa.table({"text": texts}), source, row_group_size=5)
    config = ShardConfig(name="shard_00000", url=str(source))
    shard = folder / "shards/shard_00000"
    counts = download_shard(config, {}, shard, Runtime())
    assert counts["documents"] == len(texts)
    assert counts["characters"] == sum(map(len, texts))
    assert counts["bytes"] == sum(len(text.encode()) for text in texts)
    (folder / "tokenizer").mkdir()
    settings = TokenizerConfig(vocab_size=300, min_count=1)
    train_tokenizer(settings, {"shards": folder / "shards"}, folder / "tokenizer", Runtime())
    inputs = {"shard": shard, "tokenizer": folder / "tokenizer"}
    stats = tokenize_shard(TokenizeConfig(), inputs, folder / "tokens", Runtime())
    assert {name: stats[name] for name in ("documents", "characters", "bytes")} == json.loads(
        (shard / "stats.json").read_text()
    )
    return TokenShard.open(folder / "tokens"), Tokenizer.load(folder / "tokenizer")


@pytest.mark.parametrize("texts", ODD.values(), ids=ODD.keys())
def test_every_document_comes_back_as_it_was(texts, tmp_path):
    shard, tokenizer = through_all(tmp_path, texts)
    assert [tokenizer.decode(ids[1:]) for ids in shard] == texts


def test_duplicate_documents_are_kept_and_each_is_read_once_an_epoch(tmp_path):
    texts = ODD["duplicate documents"]
    shard, tokenizer = through_all(tmp_path, texts)
    bos = tokenizer.special("bos")
    batches = PretrainBatches([shard], 1, shard.n_tokens, seed=3, bos_id=bos)
    _, targets = batches.batch(0)  # a row as long as the epoch; its first target, a bos, is masked
    stream = [bos, *targets[0, 1:].tolist()]
    starts = [i for i, token in enumerate(stream) if token == bos]
    found = [
        tokenizer.decode(stream[a + 1 : b]) for a, b in zip(starts, [*starts[1:], len(stream)], strict=True)
    ]
    assert Counter(found) == Counter(texts)


def test_a_document_of_many_megabytes_is_one_document(tmp_path):
    sentence = "A document that somebody forgot to cut, line after line.\n"
    text = (sentence * (LONG_BYTES // len(sentence) + 1))[:LONG_BYTES]
    shard, tokenizer = through_all(tmp_path, ["before", text, "after"])
    assert shard.n_documents == 3
    assert tokenizer.decode_bytes(shard.document(1)[1:].tolist()) == text.encode()
    assert tokenizer.decode(shard.document(2)[1:]) == "after"
