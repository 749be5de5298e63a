"""What a line does that somebody enters: a command such as `/seed 7`, or a message to the model.

The commands are one table, which help and completion read too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nanochat.chat.conversation_file import load_conversation, save_conversation
from nanochat.errors import DataError, NanochatError
from nanochat.system_errors import explain
from nanochat.terminal.blocks import without_marks
from nanochat.terminal.talk import Talk

_BARE = {"quit": "/quit", "exit": "/quit", "clear": "/clear"}
_REPLACED = "bytes that are not UTF-8 were replaced"


@dataclass(frozen=True)
class Command:
    """A command: its name, what it is given, what it does in words, and the function that does it."""

    name: str
    argument: str
    help: str
    run: Callable[[Talk, str], str | None]
    """Returns what is then said."""
    completes: Literal["path"] | None = None


def take(talk: Talk, line: str) -> None:
    """Do what a line, or a block of lines, asks for; what is wrong with it is said on the screen."""
    word = line.strip().lower()
    if not word:
        return
    if "\ufffd" in line:
        talk.screen.note(_REPLACED)
    try:
        if word in _BARE or line.startswith("/"):
            _obey(talk, _BARE.get(word, line))
        else:
            talk.ask(without_marks(line))
    except (NanochatError, OSError) as error:
        wrong = explain(error) if isinstance(error, OSError) else error
        talk.screen.note(f"{wrong}; {wrong.hint}" if getattr(wrong, "hint", None) else str(wrong))


def _obey(talk: Talk, line: str) -> None:
    name, *rest = line[1:].strip().split(maxsplit=1) or [""]
    command = next((command for command in COMMANDS if command.name == name.lower()), None)
    if command is None:
        known = " ".join(f"/{command.name}" for command in COMMANDS)
        raise DataError(
            f"/{name[:40]} is not a command, and was not sent to the model",
            hint=f"known: {known}; a line that begins with a space is a message",
        )
    if said := command.run(talk, without_marks(rest[0]) if rest else ""):
        talk.screen.note(said)


def _help(talk: Talk, argument: str) -> str:
    width = max(len(f"{command.name} {command.argument}") for command in COMMANDS)
    lines = [f"/{f'{c.name} {c.argument}':<{width}}  {c.help}" for c in COMMANDS]
    return "\n".join((*lines, _KEYS))


def _clear(talk: Talk, argument: str) -> str:
    talk.dialogue.clear()
    talk.last = None
    return "new conversation"


def _system(talk: Talk, argument: str) -> str:
    dialogue = talk.dialogue
    if argument:
        dialogue.system = "" if argument in ('""', "''") else argument
    return f"system prompt: {dialogue.system}" if dialogue.system else "there is no system prompt"


def _setting(
    field: str, kind: type[int] | type[float], none: str | None = None
) -> Callable[[Talk, str], str]:
    """Return the function that shows or changes a setting; 0 stands for None, shown as `none`."""

    def run(talk: Talk, argument: str) -> str:
        if argument:
            try:
                value: Any = kind(argument)
            except ValueError:
                whole = "a whole number" if kind is int else "a number"
                raise DataError(f"{field} is {argument!r:.60}, not {whole}") from None
            value = None if value == 0 and none else value
            try:
                talk.dialogue.sampling = replace(talk.dialogue.sampling, **{field: value})
            except ValueError as error:
                raise DataError(str(error)) from None
        found = getattr(talk.dialogue.sampling, field)
        return f"{field} is {none if found is None else found}"

    return run


def _save(talk: Talk, argument: str) -> str:
    path = _path(argument, "save")
    messages = talk.dialogue.messages
    if not talk.dialogue.turns:
        raise DataError("nothing has been said yet, so there is nothing to save")
    if path.exists() and path not in talk.files:
        raise DataError(f"{path} exists already", hint="choose another name")
    save_conversation(path, messages, {"model": talk.name, **asdict(talk.dialogue.sampling)})
    talk.files.add(path)
    return f"saved {_turns(talk)} to {path}"


def _load(talk: Talk, argument: str) -> str:
    path = _path(argument, "load")
    talk.dialogue.restore(load_conversation(path))
    talk.files.add(path)
    talk.last = None
    return f"loaded {_turns(talk)} from {path}; {_used(talk)}"


def _path(argument: str, verb: str) -> Path:
    if not argument:
        raise DataError(f"/{verb} needs the name of a file", hint=f"/{verb} talk.json")
    if "\0" in argument:
        raise DataError(f"{argument!r:.60} holds a null character, which no path can")
    try:
        return Path(argument).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"{argument!r}: there is no such user here") from None


def _tokens(talk: Talk, argument: str) -> str:
    dialogue, last = talk.dialogue, talk.last
    forgotten = f", {dialogue.forgotten} forgotten" if dialogue.forgotten else ""
    said = f"{_turns(talk)}{forgotten}; {_used(talk)}"
    if last is None:
        return said
    request = last.request
    return (
        f"{said}\nlast answer: {len(request.tokens):,} tokens in {last.seconds:.1f} s, after a prompt of"
        f" {len(request.prompt):,} tokens, {request.reused_tokens:,} of them read before"
    )


def _retry(talk: Talk, argument: str) -> None:
    talk.ask(talk.dialogue.take_back())


def _quit(talk: Talk, argument: str) -> None:
    talk.over = True


def _turns(talk: Talk) -> str:
    count = len(talk.dialogue.turns)
    return "1 turn" if count == 1 else f"{count} turns"


def _used(talk: Talk) -> str:
    used, context = talk.dialogue.used_tokens, talk.dialogue.engine.context_tokens
    return f"{used:,} of {context:,} tokens of the context are used"


COMMANDS = (
    Command("help", "", "What can be entered.", _help),
    Command("clear", "", "Forget the conversation; settings and system prompt stay.", _clear),
    Command("system", "TEXT", 'The system prompt, which the model reads first; "" for none.', _system),
    Command("temperature", "NUMBER", "0 takes the likeliest token.", _setting("temperature", float)),
    Command("topk", "N", "Draw among this many tokens; 0: all.", _setting("top_k", int, "off (all tokens)")),
    Command("topp", "P", "Draw among the fewest tokens of this probability.", _setting("top_p", float)),
    Command("minp", "P", "Leave out tokens below this share of the likeliest.", _setting("min_p", float)),
    Command("maxtokens", "N", "Longest answer.", _setting("max_new_tokens", int)),
    Command("seed", "N", "Same seed and conversation, same answer.", _setting("seed", int)),
    Command("retry", "", "Answer the last message again, with another seed.", _retry),
    Command("save", "FILE", "Write the conversation as JSON.", _save, completes="path"),
    Command("load", "FILE", "Go on with a saved conversation.", _load, completes="path"),
    Command("tokens", "", "What the context holds, and how fast the last answer was.", _tokens),
    Command("quit", "", "Leave.", _quit),
)
_KEYS = (
    'Alt-Enter begins a new line, """ begins and ends a block of lines;'
    " Ctrl-C stops an answer, Ctrl-D leaves."
)
