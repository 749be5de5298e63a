"""The verb `chat`: one answer, lines from a pipe, or a terminal's conversation. `flows.cli.app` registers it.

Answers go to stdout, everything else to stderr. What one answer does not need is imported where it is used.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, Source, Step, Tag, Weights, choice_of
from flows.cli.options import Device, StoreUrl, open_store
from nanochat.config import Sampling
from nanochat.errors import ConfigError

if TYPE_CHECKING:
    from nanochat.chat.conversation import Dialogue

_STDIN = "-"
_HISTORY = "chat_history"


def chat(
    ref: ModelRef = "publish",
    store: StoreUrl = None,
    prompt: Annotated[
        str | None,
        typer.Option("-p", "--prompt", help="Answer this and exit; - reads it from standard input."),
    ] = None,
    system: Annotated[str, typer.Option(help="System prompt, read before the first message.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = Sampling.temperature,
    top_k: Annotated[
        int, typer.Option(min=0, help="Sample among this many tokens; 0: among all.")
    ] = Sampling.top_k or 0,
    top_p: Annotated[
        float, typer.Option(help="Sample among the fewest tokens that together have this probability.")
    ] = Sampling.top_p,
    min_p: Annotated[
        float, typer.Option(help="Leave out tokens less likely than this share of the likeliest.")
    ] = Sampling.min_p,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, tokens that are already in the text become less likely.")
    ] = Sampling.repetition_penalty,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = Sampling.max_new_tokens,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed and conversation, same answer.")] = Sampling.seed,
    device: Device = "cpu",
    weights: Weights = "auto",
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With -p: print one JSON object when the answer is there.")
    ] = False,
) -> None:
    """Talk to a model, or answer one prompt."""
    if as_json and prompt is None:
        raise ConfigError("--json is for one answer", hint="give the prompt with -p TEXT, or -p - to read it")
    try:
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k or None,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            max_new_tokens=max_tokens,
            seed=seed,
            stop=tuple(stop or ()),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    _take_any_text()
    asked = sys.stdin.read() if prompt == _STDIN else prompt
    if asked and "\ufffd" in asked:
        output.say("(bytes that are not UTF-8 were replaced)")
    from flows.models.find import open_engine

    _, opened = open_store(store)
    engine = open_engine(opened, ref, choice_of(source, tag, step), device, weights)
    from nanochat.chat.conversation import Dialogue

    dialogue = Dialogue(engine, sampling, system)
    if asked is not None:
        _answer(dialogue, asked, as_json=as_json)
    else:
        _talk(dialogue, ref)


def _answer(dialogue: Dialogue, prompt: str, *, as_json: bool) -> None:
    """Print one answer while it is written, or all about it in the end."""
    from nanochat.chat.pieces import shown_each
    from nanochat.terminal.interrupts import INTERRUPTED, ctrl_c_calls
    from nanochat.terminal.talk import how_it_ended

    reply = dialogue.ask(prompt)
    with ctrl_c_calls(reply.stop_soon):
        for text in shown_each(reply):
            if not as_json:
                output.write(text)
    if as_json:
        output.show_json(
            {
                "text": reply.text,
                "parts": reply.parts,
                "tokens": len(reply.request.tokens),
                "prompt_tokens": len(reply.request.prompt),
                "seconds": round(reply.seconds, 4),
                "finish_reason": reply.request.finish,
            }
        )
    else:
        output.write("\n")
        if end := how_it_ended(reply):
            output.say(f"({end})")
    if reply.request.finish == "cancelled":
        raise typer.Exit(INTERRUPTED)


def _talk(dialogue: Dialogue, name: str) -> None:
    """Talk at a terminal, or by lines with what is not one."""
    from nanochat.terminal.talk import Talk

    if sys.stdin.isatty() and sys.stdout.isatty():
        from flows.settings import home_folder
        from nanochat.terminal.typed_chat import talk_at_terminal

        talk_at_terminal(lambda screen: Talk(dialogue, screen, name), history=home_folder() / _HISTORY)
        return
    from nanochat.terminal.line_chat import LineScreen, talk_by_lines

    talk = Talk(dialogue, LineScreen(output.write, output.say), name)
    if sys.stdin.isatty():
        output.say("a message a line; /help lists what can be entered")
    try:
        talk_by_lines(talk, sys.stdin)
    except KeyboardInterrupt:
        output.say("")


def _take_any_text() -> None:
    """Let neither a byte that is not UTF-8 nor a character that the terminal lacks end the conversation.

    A stream that was closed (None) is as an empty one.
    """
    sys.stdin, sys.stdout = sys.stdin or io.StringIO(), sys.stdout or io.StringIO()
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
