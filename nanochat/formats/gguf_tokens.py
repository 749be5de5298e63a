"""The tokenizer, the chat template and the stop tokens as llama.cpp reads them from a file.

Merges are those of `tokenizer_json`. Where text is cut into words is a name that llama.cpp knows, and none of
those takes digits by two. The nearest takes them by three and is otherwise equal, so that `2024` would be 20,
2 and 4. But text is searched for tokens of the kind `user defined` before it is cut: pairs of digits of that
kind, no two of which can overlap, bring back most numbers. `docs/publishing.md` has the counts.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from nanochat.errors import ConfigError, DataError
from nanochat.formats.tokenizer_json import merged_pairs
from nanochat.tokenizer.bpe_training import map_bytes
from nanochat.tokenizer.split import PATTERN

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from nanochat.tokenizer.tokenizer import Tokenizer

SPLIT_NOTE = (
    "llama.cpp has no pre-tokenizer that takes digits by two, as training did; llama-bpe takes them by three."
    " Pairs that begin with 1 or 2 are found beforehand. Other numbers of three and more digits may be cut"
    " elsewhere: 0.2 % of the tokens of English web text. All other text gives equal tokens, but for blanks"
    " before such a pair."
)
_NEAREST = "llama-bpe"
# What such a pair ends with begins none of them: which is looked for first, which differs between builds of
# llama.cpp, does not matter. Of all such choices with two first digits it is right most often.
_FIRST = "12"
_PAIRS = {f"{first}{last}".encode() for first in _FIRST for last in "0123456789" if last not in _FIRST}

# A list of merges must not be empty; where these two become one, which is no token, it is taken apart again.
_NO_MERGE = (b"a", b"b")


def chat_template() -> str:
    """Return the template that renders conversations as training did."""
    return files("nanochat.formats").joinpath("chat_template.jinja").read_text(encoding="utf-8")


def add_tokens(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """Put the tokenizer into a file.

    Raises ConfigError for another split pattern, DataError for special tokens that are ordinary ones as well.
    """
    if tokenizer.pattern != PATTERN:
        raise ConfigError(
            f"the tokenizer's split pattern is {tokenizer.pattern[:60]!r}, which is not nanochat's",
            hint="llama.cpp cuts text as a name says, not as a pattern does: use another --format",
        )
    texts, kinds = _table(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_NEAREST)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    pairs = list(merged_pairs(tokenizer.ranks)) or [_NO_MERGE]
    writer.add_token_merges([f"{map_bytes(left)} {map_bytes(right)}" for left, right in pairs])
    bos, end = tokenizer.special("bos"), tokenizer.special("assistant_end")
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_eom_token_id(bos)  # an answer also ends where another document would begin
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat_template())


def _table(tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Return the text and the kind of each token."""
    from gguf import TokenType

    texts = {rank: map_bytes(token) for token, rank in tokenizer.ranks.items()}
    pairs = {tokenizer.ranks[pair] for pair in _PAIRS & tokenizer.ranks.keys()}
    specials = {i: text for text, i in tokenizer.special_tokens.items()}
    if twice := set(texts.values()) & set(specials.values()):
        raise DataError(
            f"{sorted(twice)[0]!r} is both a special token and an ordinary one", hint="use another --format"
        )
    kinds = {**dict.fromkeys(pairs, TokenType.USER_DEFINED), **dict.fromkeys(specials, TokenType.CONTROL)}
    ids = range(tokenizer.vocab_size)
    return [(texts | specials)[i] for i in ids], [kinds.get(i, TokenType.NORMAL) for i in ids]
