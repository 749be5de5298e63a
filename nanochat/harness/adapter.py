"""Our models as models of lm-evaluation-harness; the one place that imports it.

Texts become tokens as the harness expects of all models: context and continuation are encoded together,
spaces at the end of the context belong to the continuation, and the rest is counted from the context's own
tokens. Before every text stands `bos`, without which our models were never trained. Log-likelihoods are sums,
as the harness wants them; with `score=mean` they are CORE's instead, the mean over those tokens in which the
options of an item differ, so that the harness chooses as our evaluation does. Which tasks are asked is not
decided here.

Shapes: B rows, T positions, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nanochat.chat.engine import Engine
from nanochat.errors import ConfigError, DataError, NanochatError
from nanochat.formats.folder import find_published, read_published
from nanochat.formats.published import Choice
from nanochat.harness.chat_text import chat_text, chat_tokens, is_chat
from nanochat.model.device import device_of
from nanochat.model.packed_rows import common_prefix, packed_batches
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_TOKENS = 8_192
_CONTEXT_FACTOR = 10  # of the training context: as far as our own evaluation reads
_GENERATION = {"until", "max_gen_toks", "do_sample", "temperature", "top_k"}


@dataclass(frozen=True)
class _ScoredRow:
    """A text, and where its scored tokens begin."""

    tokens: list[int]
    start: int


@register_model("nanochat")
class HarnessModel(TemplateLM):  # type: ignore[misc]  # a package without types
    """A model in a published folder, as `export` writes it, under the harness's name `nanochat`."""

    def __init__(
        self,
        pretrained: str,
        source: str | None = None,
        tag: str | None = None,
        step: int | None = None,
        score: str = "sum",
        device: str = "cpu",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """Read the folder `pretrained`; the names are those of the harness's `--model_args`.

        The harness always gives a batch size; ours follow from the length of the texts.
        """
        super().__init__()
        if score not in ("sum", "mean"):
            raise ConfigError(
                f"score is {score!r}", hint="use sum, as the harness counts, or mean, as CORE does"
            )
        choice = Choice(source=source, tag=tag, step=step)
        published = read_published(find_published(Path(pretrained).expanduser(), choice))
        self.tokenizer: Tokenizer = published.tokenizer
        self.model = published.model.eval().to(device_of(device))
        self.max_length = _CONTEXT_FACTOR * self.model.config.sequence_len
        self._mean = score == "mean"

    @property
    def eot_token_id(self) -> int:
        """Return the token that ends a text: the `bos` of the next."""
        return self.tokenizer.special("bos")

    @property
    def tokenizer_name(self) -> str:
        """Return what the harness keeps its requests under."""
        return f"nanochat of {self.tokenizer.vocab_size} tokens"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the tokens of a text, `bos` first unless it has one or is to have none."""
        if is_chat(string):
            return chat_tokens(self.tokenizer, string)
        tokens = self.tokenizer.encode(string)
        return tokens if add_special_tokens is False else [self.eot_token_id, *tokens]

    def apply_chat_template(
        self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as text that `tok_encode` takes for what it is."""
        if not add_generation_prompt:
            raise ConfigError("an answer that is begun for the model (gen_prefix) is not supported")
        return chat_text(chat_history)  # type: ignore[arg-type]  # checked there

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return what the harness records of the form of conversations."""
        return "nanochat.tokenizer.chat_format" if chat_template else None

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return for each continuation its score after its context, and whether it is the likeliest."""
        if not self._mean:
            summed: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
            return summed
        items: dict[tuple[str | None, int | None], list[int]] = {}
        for number, request in enumerate(requests):
            items.setdefault((request.task_name, request.doc_id), []).append(number)
        rows: list[_ScoredRow] = [_ScoredRow([], 0)] * len(requests)
        for numbers in items.values():
            for number, row in zip(numbers, self._options([requests[n].args for n in numbers]), strict=True):
                rows[number] = row
        return [(float(found.mean()), likeliest) for found, likeliest in self._scored(rows)]

    def _options(self, pairs: Sequence[tuple[str, str]]) -> list[_ScoredRow]:
        """Return the options of one item, scored where they differ: at one end."""
        texts = [self.tok_encode(f"{context}{continuation}") for context, continuation in pairs]
        shortest = min(map(len, texts))
        if len(pairs) == 1:
            before = self.tok_encode(pairs[0][0].rstrip(" "))
            return [_ScoredRow(texts[0], max(1, min(common_prefix([before, *texts]), shortest - 1)))]
        if len({context for context, _ in pairs}) == 1:
            start = max(1, min(common_prefix(texts), shortest - 1))
            return [_ScoredRow(text, start) for text in texts]
        common = max(1, min(common_prefix([text[::-1] for text in texts]), shortest - 1))
        return [_ScoredRow(text, len(text) - common) for text in texts]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        for (context, continuation), _before, after in requests:
            if not after:
                raise DataError(f"{continuation!r} adds no token to {context[-40:]!r}, so it has no score")
        rows = [_ScoredRow([*before, *after], len(before)) for _texts, before, after in requests]
        found = [(float(scores.sum()), likeliest) for scores, likeliest in self._scored(rows)]
        for (texts, *_tokens), result in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, result)
        return found

    @torch.inference_mode()
    def _scored(self, rows: Sequence[_ScoredRow]) -> list[tuple[torch.Tensor, bool]]:
        """Return per row the log-likelihoods of its scored tokens, and whether each is the likeliest."""
        # A conversation was cut where it was made tokens; other text loses its beginning.
        user = self.tokenizer.special("user_start")
        cut = [row if row.tokens[1] == user else _last(row, self.max_length) for row in rows]
        found: dict[int, tuple[torch.Tensor, bool]] = {}
        for batch in packed_batches([len(row.tokens) for row in cut], _BATCH_TOKENS):
            longest = len(cut[batch[0]].tokens)
            padded = [cut[i].tokens + [self.eot_token_id] * (longest - len(cut[i].tokens)) for i in batch]
            hidden = self.model.hidden(torch.tensor(padded, device=self.model.device))  # (B, T, C)
            for place, i in enumerate(batch):
                row = cut[i]
                targets = torch.tensor(row.tokens[row.start :])
                logits = self.model.logits(hidden[place, row.start - 1 : len(row.tokens) - 1]).cpu()  # (T, V)
                likelihoods = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
                found[i] = likelihoods.double(), bool((logits.argmax(-1) == targets).all())
        return [found[i] for i in range(len(rows))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each whole text, in windows of the training context."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tokenizer.encode(text),
                prefix_token=self.eot_token_id,
                max_seq_len=self.model.config.sequence_len,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            rows = [_ScoredRow([*before, *after], len(before)) for before, after in pairs]
            found.append(sum(float(scores.sum()) for scores, _ in self._scored(rows)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes after each context, with the calculator, up to where it is to stop."""
        engine = Engine(self.model, self.tokenizer)
        texts: dict[int, str] = {}
        for settings, numbers in _alike([request.args[1] for request in requests]):
            room = settings["max_new_tokens"]
            prompts = [
                self.tok_encode(requests[n].args[0])[-max(1, self.max_length - room) :] for n in numbers
            ]
            for n, written in zip(numbers, engine.generate_batch(prompts, **settings), strict=True):
                context, wanted = requests[n].args
                texts[n] = _until(self.tokenizer.decode(written), wanted.get("until") or ())
                self.cache_hook.add_partial("generate_until", (context, wanted), texts[n])
        return [texts[n] for n in range(len(requests))]


def main() -> None:
    """Run the harness's own command line, to which `--model nanochat` is known."""
    try:
        cli_evaluate()
    except NanochatError as error:
        raise SystemExit(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else "")) from None


def _last(row: _ScoredRow, limit: int) -> _ScoredRow:
    """Return a row without what is too long at its beginning."""
    cut = max(0, len(row.tokens) - limit)
    return _ScoredRow(row.tokens[cut:], max(row.start - cut, 1))


def _alike(wanted: Sequence[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Group requests by how they are to be generated; raise ConfigError for what our engine cannot do."""
    groups: dict[tuple[int, float, int | None], list[int]] = {}
    for number, settings in enumerate(wanted):
        if unknown := sorted(set(settings) - _GENERATION):
            known = ", ".join(sorted(_GENERATION))
            raise ConfigError(f"generation setting {unknown[0]} is not known", hint=f"known are {known}")
        temperature = float(settings.get("temperature", 1.0)) if settings.get("do_sample") else 0.0
        key = int(settings.get("max_gen_toks", 256)), temperature, settings.get("top_k")
        groups.setdefault(key, []).append(number)
    for (tokens, temperature, top_k), numbers in groups.items():
        yield {"max_new_tokens": tokens, "temperature": temperature, "top_k": top_k}, numbers


def _until(text: str, stops: str | Sequence[str]) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop:
            text = text.partition(stop)[0]
    return text
