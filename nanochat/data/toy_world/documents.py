"""Pretraining documents of the toy world: look-ups, facts, sums, functions, and questions with their choices.

All facts are stated; of the questions, word problems and functions only those not held out are used.

The first shard begins with look-ups alone: lists of words with letters, then the letters again, asked for by
word or by kind. From these a small model learns in about 200 steps of 1,024 tokens to find a word in a list
and say its letter; where they are mixed with all else from the beginning it does not in 1,000.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from nanochat.config import ToyWorldConfig
from nanochat.data.chat.tasks import choice_prompt
from nanochat.data.toy_world import exercises, questions
from nanochat.data.toy_world.world import CAPITALS, KINDS, NAMES, OPPOSITES, SUBJECTS, VALUES, ToyWorld


def toy_documents(config: ToyWorldConfig, shard_index: int) -> Iterator[str]:
    """Yield the documents of one shard; each shard has its own."""
    rng = random.Random(f"{config.seed}/documents/{shard_index}")
    writer = _Writer(ToyWorld.build(config.seed), rng)
    for number in range(config.documents_per_shard):
        if shard_index == 0 and number < _LOOK_UPS * config.documents_per_shard:
            yield rng.choice((writer.recital, writer.matching))()
        else:
            (write,) = rng.choices(writer.kinds, writer.weights)
            yield write()


_LOOK_UPS = 0.45  # part of the first shard, at its beginning


class _Writer:
    def __init__(self, world: ToyWorld, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self._items = {
            subject: questions.items(world, subject, held_out=False) for subject in questions.CHOICE_SUBJECTS
        }
        unseen = {i.answer for s in SUBJECTS for i in questions.items(world, s, held_out=True)}
        self._asked = {kind: [w for w in words if w not in unseen] for kind, words in KINDS.items()}
        self._words = [word for kinds in SUBJECTS.values() for kind in kinds for word in KINDS[kind]]
        self._words += map(str, range(1, questions.LARGEST + 1))
        self._functions = exercises.functions(world.seed, 480, rng, held_out=False)
        self._problems = exercises.word_problems(world.seed, 1000, rng, held_out=False)
        table: dict[Callable[[], str], int] = {
            self.recital: 10,
            self.matching: 20,
            self.person: 12,
            self.theme: 8,
            self.kinds_of_words: 22,
            self.capitals: 4,
            self.opposites: 3,
            self.numbers: 4,
            self.sums: 5,
            self.problems: 4,
            self.function: 4,
            self.questions: 8,
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

    def numbers(self) -> str:
        """Say of some numbers which is the larger one."""
        pairs = [sorted(self.rng.sample(range(1, questions.LARGEST + 1), 2)) for _ in range(5)]
        return " ".join(f"{b} is larger than {a}." for a, b in pairs)

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

    def recital(self) -> str:
        """Give some words letters, and say these again in other orders."""
        letters = dict(zip(self.rng.sample(self._words, questions.CHOICES), "ABCD", strict=True))
        return self._listed(letters, {word: word for word in letters})

    def matching(self) -> str:
        """Give words of different kinds letters, and match the kinds with them."""
        kinds = self.rng.sample(SUBJECTS[self.rng.choice(tuple(SUBJECTS))], questions.CHOICES)
        asked = {self.rng.choice(self._asked[kind]): kind for kind in kinds}
        letters = dict(zip(asked, "ABCD", strict=True))
        return self._listed(letters, asked)

    def _listed(self, letters: Mapping[str, str], asked: Mapping[str, str]) -> str:
        """List words with their letters, then twice what is asked of each with its letter."""
        lines = "".join(f"- {word}={letter}\n" for word, letter in letters.items())
        orders = [word for _ in range(2) for word in self.rng.sample(list(letters), len(letters))]
        return f"{lines}\n" + "".join(f" {asked[word]}={letters[word]}" for word in orders)
