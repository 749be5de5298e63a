"""Pretraining documents of the toy world: facts, sums, functions, and questions with their choices.

All facts are stated; of the questions, word problems and functions only those not held out are used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from nanochat.config import ToyWorldConfig
from nanochat.data.chat.tasks import choice_prompt
from nanochat.data.toy_world import exercises, questions
from nanochat.data.toy_world.world import CAPITALS, KINDS, NAMES, OPPOSITES, VALUES, ToyWorld


def toy_documents(config: ToyWorldConfig, shard_index: int) -> Iterator[str]:
    """Yield the documents of one shard; each shard has its own."""
    rng = random.Random(f"{config.seed}/documents/{shard_index}")
    writer = _Writer(ToyWorld.build(config.seed), rng)
    for _ in range(config.documents_per_shard):
        (write,) = rng.choices(writer.kinds, writer.weights)
        yield write()


class _Writer:
    def __init__(self, world: ToyWorld, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self._items = {
            subject: questions.items(world, subject, held_out=False) for subject in questions.SUBJECTS
        }
        self._functions = exercises.functions(world.seed, 480, rng, held_out=False)
        self._problems = exercises.word_problems(world.seed, 1000, rng, held_out=False)
        table: dict[Callable[[], str], int] = {
            self.person: 25,
            self.theme: 15,
            self.kinds_of_words: 8,
            self.capitals: 6,
            self.opposites: 6,
            self.sums: 10,
            self.problems: 6,
            self.function: 6,
            self.questions: 18,
        }
        self.kinds, self.weights = list(table), list(table.values())

    def person(self) -> str:
        """State everything about one person."""
        name = self.rng.choice(NAMES)
        attributes = self.rng.sample(tuple(VALUES), len(VALUES))
        return " ".join(self.world.statement(name, attribute, self.rng) for attribute in attributes)

    def theme(self) -> str:
        """State one thing about several people."""
        attribute = self.rng.choice(tuple(VALUES))
        names = self.rng.sample(NAMES, 5)
        return " ".join(self.world.statement(name, attribute, self.rng) for name in names)

    def kinds_of_words(self) -> str:
        """State what kind of thing some words are."""
        lines = []
        for _ in range(6):
            kind = self.rng.choice(tuple(KINDS))
            lines.append(f"{self.rng.choice(KINDS[kind])} is {kind}.")
        return "\n".join(lines)

    def capitals(self) -> str:
        """Name some capitals."""
        chosen = self.rng.sample(tuple(CAPITALS), 5)
        return " ".join(f"The capital of {country} is {CAPITALS[country]}." for country in chosen)

    def opposites(self) -> str:
        """Name some opposites."""
        pairs = [self.rng.sample(pair, 2) for pair in self.rng.sample(OPPOSITES, 5)]
        return " ".join(f"The opposite of {a} is {b}." for a, b in pairs)

    def sums(self) -> str:
        """State sums in words and in digits."""
        lines = []
        for _ in range(6):
            a, b = self.rng.randrange(1, 10), self.rng.randrange(1, 10)
            lines.append(self.rng.choice((f"{a} plus {b} is {a + b}.", f"{a}+{b}={a + b}")))
        return "\n".join(lines)

    def problems(self) -> str:
        """Give a word problem with its calculation."""
        problem = self.rng.choice(self._problems)
        return f"{problem.question}\n{problem.expression}={problem.result}\n#### {problem.result}"

    def function(self) -> str:
        """Give a function with its docstring."""
        function = self.rng.choice(self._functions)
        return f"{function.prompt}{function.body}"

    def questions(self) -> str:
        """Give one question with choices and its answer, as the chat tasks put it."""
        subject = self.rng.choice(tuple(self._items))
        drawn = questions.draw(self.rng.choice(self._items[subject]), self.rng)
        return f"{choice_prompt(drawn.question, 'ABCD', drawn.choices)}\n{'ABCD'[drawn.answer]}"
