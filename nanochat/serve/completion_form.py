"""Texts that were gone on with, in OpenAI's form; what the calculator did stands in the text."""

from __future__ import annotations

from dataclasses import dataclass, field

from nanochat.serve.answer_form import FINISHES, AnswerForm
from nanochat.serve.calculator_uses import InlineReader
from nanochat.serve.chat_answer import Usage
from nanochat.serve.completion_answer import CompletionAnswer, CompletionChoice, CompletionLogprobs
from nanochat.serve.completion_request import CompletionRequest
from nanochat.serve.job_desk import Ending, News
from nanochat.serve.service import ServedModel
from nanochat.serve.token_lines import ShownTokens, completion_logprobs


@dataclass
class _Text:
    """What is known of one text."""

    tokens: ShownTokens = field(default_factory=ShownTokens)
    reader: InlineReader = field(default_factory=InlineReader)
    text: str = ""
    logprobs: CompletionLogprobs | None = None
    ending: Ending = "timeout"


class CompletionForm(AnswerForm):
    """The texts of one request."""

    def __init__(self, body: CompletionRequest, model: ServedModel, prompt_tokens: int, count: int) -> None:
        super().__init__(body, model, prompt_tokens, count, prefix="cmpl")
        self._top = body.logprobs
        self._texts = [_Text() for _ in range(count)]

    def _opening(self) -> list[str]:
        return []

    def _lines(self, number: int, news: News) -> list[str]:
        new = self._new(number, news)
        found = new.logprobs is not None and new.logprobs.tokens
        return [self._line([new], None)] if new.text or found or new.finish_reason else []

    def _new(self, number: int, news: News) -> CompletionChoice:
        """Return what is new of one text."""
        one = self._texts[number]
        text = one.reader.read(news.pieces, last=news.last)
        logprobs = None
        if self._top is not None:
            shown = one.tokens.until(one.reader.chars, news.logprobs)
            logprobs = completion_logprobs(
                self.model.tokenizer, shown, one.reader.place, with_top=self._top > 0
            )
        finish, reason = FINISHES[news.ending] if news.ending else (None, None)
        choice = CompletionChoice(index=number, text=text, logprobs=logprobs, finish_reason=finish)
        if reason:
            choice.stop_reason = reason
        return choice

    def _take_in(self, number: int, news: News) -> None:
        new, one = self._new(number, news), self._texts[number]
        one.text += new.text
        if new.logprobs is not None:
            one.logprobs = _joined(one.logprobs, new.logprobs)
        one.ending = news.ending or one.ending

    def _all(self, usage: Usage) -> CompletionAnswer:
        choices = []
        for number, one in enumerate(self._texts):
            finish, reason = FINISHES[one.ending]
            choices.append(
                CompletionChoice(
                    index=number,
                    text=one.text,
                    logprobs=one.logprobs,
                    finish_reason=finish,
                    stop_reason=reason,
                )
            )
        answer = self._of(choices)
        answer.usage = usage
        return answer

    def _usage_line(self, usage: Usage) -> str:
        return self._line([], usage)

    def _line(self, choices: list[CompletionChoice], usage: Usage | None) -> str:
        answer = self._of(choices)
        if self.wants_usage:
            answer.usage = usage
        return answer.line()

    def _of(self, choices: list[CompletionChoice]) -> CompletionAnswer:
        return CompletionAnswer(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.model.id,
            choices=choices,
        )


def _joined(before: CompletionLogprobs | None, new: CompletionLogprobs) -> CompletionLogprobs:
    if before is None:
        return new
    top = None if before.top_logprobs is None else [*before.top_logprobs, *(new.top_logprobs or ())]
    return CompletionLogprobs(
        tokens=before.tokens + new.tokens,
        token_logprobs=before.token_logprobs + new.token_logprobs,
        top_logprobs=top,
        text_offset=before.text_offset + new.text_offset,
    )
