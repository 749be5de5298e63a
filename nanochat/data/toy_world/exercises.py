"""Word problems, one-line functions and small talk of the toy world.

Held out: for word problems, calculations (of sums and products in either order); for functions, what one does
with which arguments, whatever its name; for small talk, pairs of a greeting and a person, and the questions
that `nanochat.data.toy_world.questions` holds out.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanochat.data.toy_world.questions import Item, items
from nanochat.data.toy_world.world import NAMES, THINGS, ToyWorld, calculations, split

_OPERATIONS = {
    "+": (
        "{name} has {a} {things}. {name} gets {b} more. How many {things} are there now?",
        "{name} finds {a} {things}. Then {name} finds {b} more. How many {things} are there now?",
    ),
    "-": (
        "{name} has {a} {things}. {name} gives {b} away. How many {things} are left?",
        "{name} buys {a} {things}. {name} loses {b}. How many {things} are left?",
    ),
    "*": (
        "{name} has {a} bags. Each bag has {b} {things}. How many {things} are there in all?",
        "{name} fills {a} boxes. Each box has {b} {things}. How many {things} are there in all?",
    ),
}
_FUNCTIONS: dict[str, tuple[str, Callable[..., float]]] = {
    # what it returns: the expression of its arguments, and the same to compute what a test expects
    "the sum of {0} and {1}": ("{0} + {1}", operator.add),
    "{0} minus {1}": ("{0} - {1}", operator.sub),
    "{0} times {1}": ("{0} * {1}", operator.mul),
    "the larger of {0} and {1}": ("max({0}, {1})", max),
    "the smaller of {0} and {1}": ("min({0}, {1})", min),
    "twice {0}": ("2 * {0}", lambda x: 2 * x),
    "the square of {0}": ("{0} * {0}", lambda x: x * x),
    "{0} plus one": ("{0} + 1", lambda x: x + 1),
    "minus {0}": ("-{0}", operator.neg),
    "half of {0}": ("{0} / 2", lambda x: x / 2),
}
_FUNCTION_NAMES = ("solve", "compute", "work", "find", "make", "get", "run", "calc", "give", "result")
_ARGUMENTS = (("a", "b"), ("x", "y"), ("m", "n"), ("p", "q"), ("s", "t"), ("u", "v"))
_TRIALS = ((3, 4), (7, 2), (-1, 5), (0, 0), (10, -6))


@dataclass(frozen=True)
class WordProblem:
    """A word problem and the one calculation that answers it."""

    question: str
    expression: str
    result: int
    things: str

    @property
    def answer(self) -> str:
        """Return the answer with the calculation marked and the result after `####`."""
        return f"<<{self.expression}={self.result}>>{self.result} {self.things}\n#### {self.result}"


@dataclass(frozen=True)
class Function:
    """A one-line function: its head with a docstring, its body, and what it must do."""

    name: str
    arguments: tuple[str, ...]
    kind: str  # a key of the table of functions

    @property
    def head(self) -> str:
        """Return the line that starts the function."""
        return f"def {self.name}({', '.join(self.arguments)}):\n"

    @property
    def prompt(self) -> str:
        """Return the head and a docstring that says what to return."""
        return f'{self.head}    """Return {self.kind.format(*self.arguments)}."""\n'

    @property
    def body(self) -> str:
        """Return the one line of the function."""
        return f"    return {_FUNCTIONS[self.kind][0].format(*self.arguments)}\n"

    @property
    def test(self) -> str:
        """Return the source of a `check(candidate)`."""
        lines = []
        for trial in _TRIALS:
            values = trial[: len(self.arguments)]
            expected = _FUNCTIONS[self.kind][1](*values)
            lines.append(f"    assert candidate({', '.join(map(str, values))}) == {expected}\n")
        return "def check(candidate):\n" + "".join(lines)


def word_problems(seed: int, rows: int, rng: random.Random, *, held_out: bool) -> list[WordProblem]:
    """Draw different word problems of one operation."""
    allowed = [c for c in calculations(seed, held_out=held_out) if min(c.a, c.b) > 1]
    drawn: dict[WordProblem, None] = {}
    for _ in range(20 * rows):
        asked = rng.choice(allowed)
        things = rng.choice(THINGS)
        form = rng.choice(_OPERATIONS[asked.sign])
        text = form.format(name=rng.choice(NAMES), a=asked.a, b=asked.b, things=things)
        drawn.setdefault(WordProblem(text, f"{asked.a}{asked.sign}{asked.b}", asked.result, things))
        if len(drawn) == rows:
            break
    return list(drawn)


def functions(seed: int, rows: int, rng: random.Random, *, held_out: bool) -> list[Function]:
    """Return functions in random order: held-out ones each once at most, training ones repeated to `rows`."""
    made = [
        Function(name, arguments[: 2 if "{1}" in kind else 1], kind)
        for kind in _FUNCTIONS
        for name in _FUNCTION_NAMES
        for arguments in _ARGUMENTS
    ]
    allowed = split(seed, made, held_out=held_out, content=lambda function: function.body)
    rng.shuffle(allowed)
    if held_out:
        return allowed[:rows]
    return [allowed[i % len(allowed)] for i in range(rows)]


def small_talk(
    world: ToyWorld, rows: int, rng: random.Random, *, held_out: bool
) -> list[list[dict[str, Any]]]:
    """Draw conversations of one or two turns."""
    greetings = split(world.seed, [(k, n) for k in ("greet", "who") for n in NAMES], held_out=held_out)
    asked = {s: items(world, s, held_out=held_out) for s in ("arithmetic", "capitals", "facts")}
    talks = []
    for _ in range(rows):
        if rng.random() < 0.4:
            talks.append(_greeting(*rng.choice(greetings), rng, named=held_out or rng.random() < 0.5))
        else:
            talks.append(_answer(rng.choice(asked[rng.choice(tuple(asked))])))
    return talks


def _greeting(kind: str, name: str, rng: random.Random, *, named: bool) -> list[dict[str, Any]]:
    if kind == "who":
        return _turn(f"{name} wants to know who you are.", "I am a small language model.")
    greeting = rng.choice(("Hello!", "Hi!", "Good day!"))
    messages = _turn(
        f"{greeting} I am {name}." if named else greeting,
        f"Hello {name}! How can I help you?" if named else "Hello! How can I help you?",
    )
    if rng.random() < 0.5:
        messages += _turn(rng.choice(("Thank you!", "Goodbye!")), "You are welcome. Goodbye!")
    return messages


def _answer(item: Item) -> list[dict[str, Any]]:
    question = f"What is {item.noun}?"
    if item.subject != "arithmetic":
        return _turn(question, f"T{item.noun[1:]} is {item.answer}.")
    call = {"type": "python", "text": item.about.replace(" plus ", "+")}
    result = {"type": "python_output", "text": item.answer}
    return _turn(question, [call, result, {"type": "text", "text": item.answer}])


def _turn(question: str, answer: str | list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
