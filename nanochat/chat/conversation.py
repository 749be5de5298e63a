"""A conversation with a model: questions, answers as they are written, and what the context still holds.

A next prompt begins with the very tokens of the turns before it, so that the engine reads only what is new.
When the context is full, the oldest turns are forgotten; the system prompt stays. Not here: what commands
there are, how an answer is shown, and files (`nanochat.chat.conversation_file`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nanochat.chat.engine import Engine
from nanochat.chat.pieces import Piece, PieceKind, PieceStream, shown
from nanochat.config import Sampling
from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import Message, Part, render, render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

_PART_TYPES: dict[PieceKind, str] = {"text": "text", "expression": "python", "result": "python_output"}


@dataclass
class Turn:
    """A question, and the tokens of its answer with the one that ends it."""

    question: str
    answer: list[int]


class Reply:
    """One answer while it is written: iterate for its pieces. What is written stays when it is stopped."""

    def __init__(self, engine: Engine, turn: Turn, prompt: Sequence[int], sampling: Sampling) -> None:
        self.turn = turn
        self.request = engine.submit(prompt, sampling)
        self.pieces: list[Piece] = []
        self.seconds = 0.0
        """From the question to the last piece so far."""
        self._engine = engine
        self._began = time.perf_counter()
        self._stopping = False

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces as they are written; whoever leaves early stops the answer."""
        try:
            while self.request.finish is None and not self._stopping:
                for written in self._engine.step():
                    if written.request is self.request:
                        yield from self._taken(written.pieces)
        finally:
            self.stop()

    def stop_soon(self) -> None:
        """Let the answer end after the step that it is in; a signal's handler may ask for this."""
        self._stopping = True

    def stop(self) -> None:
        """End the answer where it is, unless it has ended."""
        self._engine.cancel(self.request)
        self.turn.answer = _closed(self._engine.tokenizer, self.request.tokens, self.parts)

    @property
    def parts(self) -> list[Part]:
        """What has been written, in nanochat's own form."""
        return _parts(self.pieces)

    @property
    def text(self) -> str:
        """What has been written, without the calculator's part in it."""
        return "".join(piece.text for piece in self.pieces if piece.kind == "text")

    def _taken(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        self.seconds = time.perf_counter() - self._began
        for piece in pieces:
            self.pieces.append(piece)
            yield piece


class Dialogue:
    """What was said, and all that decides what is said next. One answer at a time."""

    def __init__(self, engine: Engine, sampling: Sampling | None = None, system: str = "") -> None:
        self.engine = engine
        self.sampling = sampling or Sampling()
        self.system = system
        """Put before the first question that the context still holds."""
        self.turns: list[Turn] = []
        self.forgotten = 0
        """Turns that the context had no more room for."""
        self._asked = 0

    def clear(self) -> None:
        """Forget what was said."""
        self.turns.clear()
        self.forgotten = self._asked = 0

    def ask(self, text: str) -> Reply:
        """Return the answer to a message, yet to be written; it belongs to the conversation.

        Raises DataError for a message that is empty, not text, or that the context cannot hold; then nothing
        has changed.
        """
        if not text.strip():
            raise DataError("the message is empty", hint="write something")
        alone = self._question(text, first=True)
        if 1 + len(alone) >= self.engine.context_tokens:
            raise self._too_long(alone)
        dropped = self._to_drop(text)
        turns = self.turns[dropped:]
        reply = Reply(
            self.engine, Turn(text, []), self._prompt(turns, text), self.sampling_of_turn(self._asked)
        )
        self.turns = [*turns, reply.turn]
        self.forgotten += dropped
        self._asked += 1
        return reply

    def take_back(self) -> str:
        """Remove the last turn and return its question; raise DataError if there is none.

        Asked again, it is answered with another seed.
        """
        if not self.turns:
            raise DataError("nothing has been asked yet")
        return self.turns.pop().question

    def sampling_of_turn(self, number: int) -> Sampling:
        """Return how an answer is drawn; each has a seed of its own."""
        return replace(self.sampling, seed=self.sampling.seed + number)

    @property
    def used_tokens(self) -> int:
        """How much of the context the conversation takes."""
        return len(self._prompt(self.turns)) if self.turns else 0

    @property
    def messages(self) -> list[Message]:
        """What was said, in nanochat's own form."""
        said: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            parts = _parts(_pieces(self.engine.tokenizer, turn.answer[:-1]))
            plain = all(part["type"] == "text" for part in parts)
            content: str | list[Part] = "".join(part["text"] for part in parts) if plain else parts
            said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": content}]
        return said

    def restore(self, messages: Sequence[Message]) -> None:
        """Go on with messages that alternate from the user's on, after one of the system if there is one."""
        said = list(messages)
        system = str(said.pop(0)["content"]) if said and said[0]["role"] == "system" else ""
        turns = [
            Turn(str(question["content"]), _rendered(self.engine.tokenizer, answer))
            for question, answer in zip(said[::2], said[1::2], strict=True)
        ]
        self.system, self.turns = system, turns
        self.forgotten, self._asked = 0, len(turns)

    def _too_long(self, question: Sequence[int]) -> DataError:
        with_system = " with the system prompt" if self.system else ""
        return DataError(
            f"the message has {len(question):,} tokens{with_system}; with its answer it must fit into"
            f" {self.engine.context_tokens:,}",
            hint="shorten the message or the system prompt" if self.system else "shorten the message",
        )

    def _to_drop(self, text: str) -> int:
        """Return how many of the oldest turns must go so that question and answer have room."""
        context = self.engine.context_tokens
        answer_room = min(self.sampling.max_new_tokens, context // 4)
        numbers = range(len(self.turns))
        fits = (n for n in numbers if len(self._prompt(self.turns[n:], text)) + answer_room <= context)
        return next(fits, len(self.turns))

    def _prompt(self, turns: Sequence[Turn], text: str | None = None) -> list[int]:
        """Return bos, turns, and a question if there is one."""
        prompt = [self.engine.tokenizer.special("bos")]
        for number, turn in enumerate(turns):
            prompt += [*self._question(turn.question, first=number == 0), *turn.answer]
        return [*prompt, *self._question(text, first=not turns)] if text is not None else prompt

    def _question(self, text: str, *, first: bool) -> list[int]:
        """Return a question's tokens, up to the one that begins an answer."""
        system: list[Message] = [{"role": "system", "content": self.system}] if first and self.system else []
        said: list[Message] = [*system, {"role": "user", "content": text}]
        return render_for_completion(self.engine.tokenizer, said, max_tokens=None)[1:]  # without bos


def answer(engine: Engine, prompt: str, sampling: Sampling | None = None) -> str:
    """Return the answer to one user message; raises as `Dialogue.ask` does."""
    return shown(Dialogue(engine, sampling).ask(prompt))


def _closed(tokenizer: Tokenizer, tokens: Sequence[int], parts: Sequence[Part]) -> list[int]:
    """Return an answer's tokens as a turn that has ended, wherever it was cut.

    They are those that the model wrote, unless it wrote more than is shown: what a stop string cut off.
    """
    special = tokenizer.special
    if _parts(_pieces(tokenizer, tokens)) != list(parts):
        return _rendered(tokenizer, {"role": "assistant", "content": list(parts)})
    ends = {special("python_start"): special("python_end"), special("output_start"): special("output_end")}
    marks = [token for token in tokens if token in ends or token in ends.values()]
    open_part = [ends[marks[-1]]] if marks and marks[-1] in ends else []
    return [*tokens, *open_part, special("assistant_end")]


def _rendered(tokenizer: Tokenizer, message: Message) -> list[int]:
    """Return an answer's tokens, from the one after `assistant_start` to `assistant_end`."""
    question: Message = {"role": "user", "content": ""}
    before = len(render_for_completion(tokenizer, [question], max_tokens=None))
    return render(tokenizer, [question, message], max_tokens=None)[0][before:]


def _pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Piece]:
    stream = PieceStream(tokenizer)
    return [piece for token in tokens for piece in stream.push(token)] + stream.flush()


def _parts(pieces: Iterable[Piece]) -> list[Part]:
    parts: list[Part] = []
    for piece in pieces:
        kind = _PART_TYPES[piece.kind]
        if parts and parts[-1]["type"] == kind and not piece.first:
            parts[-1]["text"] += piece.text
        else:
            parts.append({"type": kind, "text": piece.text})  # type: ignore[typeddict-item]
    return parts
