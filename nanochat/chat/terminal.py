"""Chat in a terminal: reads lines, streams answers; the commands are `quit`, `exit` and `clear`.

The conversation is kept as messages. When it no longer fits into the model's context, the oldest turns are
dropped and a note is printed; a message that does not fit by itself is refused, and the conversation goes on
without it. What is printed goes through the `write` callable, so that nothing here depends on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nanochat.chat.engine import Engine, stream_text
from nanochat.config import Sampling
from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import Message, render_for_completion

CUT = "(the answer ends here because the model's context is full)"
_REPLACED = "(bytes that are not UTF-8 were replaced)\n"


class ChatSession:
    """One conversation with an engine."""

    def __init__(self, engine: Engine, settings: Sampling | None = None) -> None:
        self.engine = engine
        self.settings = settings or Sampling()
        self._turns: list[tuple[list[int], list[int]]] = []  # tokens of question and answer
        self.dropped_turns = 0
        self.cut = False  # the last answer ended for want of context
        self._asked = 0

    def clear(self) -> None:
        """Forget the conversation."""
        self._turns.clear()
        self.dropped_turns = 0

    def ask(self, text: str) -> Iterator[str]:
        """Yield the answer to a user message piece by piece; it then belongs to the conversation.

        Raises DataError for a message that the context cannot hold, or that is not text.
        """
        tokenizer = self.engine.tokenizer
        message: Message = {"role": "user", "content": text}
        question = render_for_completion(tokenizer, [message], max_tokens=None)[1:]  # without bos
        context = self.engine.model.config.sequence_len
        if 1 + len(question) >= context:
            raise DataError(
                f"the message has {len(question):,} tokens; with its answer it must fit into {context:,}",
                hint="shorten the message",
            )
        prompt = self._prompt(question)
        room = context - len(prompt)
        answer: list[int] = []
        self._asked += 1
        tokens = self.engine.generate(
            prompt,
            max_new_tokens=min(self.settings.max_new_tokens, room),
            temperature=self.settings.temperature,
            top_k=self.settings.top_k,
            seed=self.settings.seed + self._asked - 1,
        )
        yield from stream_text(tokenizer, _kept(tokens, answer))
        self.cut = len(answer) == room < self.settings.max_new_tokens
        # An answer that was cut short ends here all the same, or the next turn would not begin.
        self._turns.append((question, [*answer, tokenizer.special("assistant_end")]))

    def _prompt(self, question: Sequence[int]) -> list[int]:
        """Return bos, the turns that still fit with room for an answer, and the question."""
        context = self.engine.model.config.sequence_len
        answer_room = min(self.settings.max_new_tokens, context // 4)
        bos = self.engine.tokenizer.special("bos")

        def length() -> int:
            return 1 + sum(len(q) + len(a) for q, a in self._turns) + len(question) + answer_room

        while self._turns and length() > context:
            self._turns.pop(0)
            self.dropped_turns += 1
        return [bos, *(token for q, a in self._turns for token in [*q, *a]), *question]


def answer(engine: Engine, prompt: str, settings: Sampling | None = None) -> str:
    """Return the answer to one user message; raises as `ChatSession.ask` does."""
    return "".join(ChatSession(engine, settings).ask(prompt))


def chat(
    engine: Engine,
    read: Callable[[], str],
    write: Callable[[str], None],
    settings: Sampling | None = None,
) -> None:
    """Talk until `quit`, `exit` or the end of input; `read` returns a line or raises EOFError."""
    session = ChatSession(engine, settings)
    write("quit or exit ends the chat, clear starts a new one\n")
    while True:
        try:
            line = read().strip()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        if line.lower() in ("quit", "exit"):
            return
        if line.lower() == "clear":
            session.clear()
            write("(new conversation)\n")
        elif line:
            if "\ufffd" in line:
                write(_REPLACED)
            _answer(session, line, write)


def _answer(session: ChatSession, line: str, write: Callable[[str], None]) -> None:
    dropped = session.dropped_turns
    pieces = session.ask(line)
    try:
        for number, piece in enumerate(pieces):
            if number == 0 and session.dropped_turns > dropped:
                count = session.dropped_turns - dropped
                write(f"(the context is full: the oldest {count} turns are forgotten)\n")
            write(piece)
        if session.cut:
            write(f"\n{CUT}")
    except KeyboardInterrupt:
        write(" (stopped)")
    except DataError as error:
        write(f"({error}{f'; {error.hint}' if error.hint else ''})")
    write("\n")


def _kept(tokens: Iterator[int], kept: list[int]) -> Iterator[int]:
    for token in tokens:
        kept.append(token)
        yield token
