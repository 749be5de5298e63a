"""The verb `push`: a model to its page on the hub, after its owner has seen what will be there."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli import output
from flows.cli.model_options import ModelRef, SignKey, Source, Step, Tag, choice_of
from flows.cli.options import AsJson, StoreUrl, open_store
from flows.cli.signed import signing
from flows.display.quantities import bytes_text
from nanochat.errors import ConfigError
from nanochat.publish.signature import FILE_NAME, covers

if TYPE_CHECKING:
    from flows.models.pushed_files import Forms
    from flows.store import Store
    from nanochat.formats.published import Choice
    from nanochat.publish.hub_upload import HubModel, HubPage

_MESSAGE = "Push with nanochat"  # a folder's name is its owner's business


def push(
    ref: ModelRef,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The model's name on the hub.")],
    store: StoreUrl = None,
    form: Annotated[
        Literal["both", "nanochat", "transformers"],
        typer.Option(
            "--format",
            help="transformers: safetensors for AutoModelForCausalLM (architecture 2026: with code);"
            " nanochat: for upstream, `nanochat` and generate_cpu.py; or both.",
        ),
    ] = "both",
    public: Annotated[
        bool, typer.Option("--public", help="Make a new page that everybody can see; else only you can.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    sign: SignKey = None,
    as_json: AsJson = False,
) -> None:
    """Push a model to the Hugging Face hub.

    Files that are there already are neither sent nor signed again. `HF_TOKEN` or a stored login says who you
    are.
    """
    target = target_of(name, public=public)
    settings, opened = open_store(store)
    choice = choice_of(source, tag, step)
    done = push_model(target, opened, settings.scratch, ref, form, choice, signed=signing(sign), yes=yes)
    if as_json:
        output.show_json(asdict(done))
        return
    output.show(done.page)
    output.say(done.text())


@dataclass(frozen=True)
class PushTarget:
    """A page that may be pushed to."""

    model: HubModel
    account: str
    public: bool  # if it is made new


@dataclass(frozen=True)
class Pushed:
    """What a push has done."""

    page: str
    commit: str | None
    sent: list[str]
    files: list[str]

    def text(self) -> str:
        """Say it in a line."""
        if not self.sent:
            return "all files were there: nothing was sent"
        return f"sent {len(self.sent)} of {len(self.files)} files"


def target_of(name: str, *, public: bool) -> PushTarget:
    """Look at a page, before any work; raise ConfigError for one that cannot be pushed to."""
    from nanochat.publish.hub_upload import HubModel

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise ConfigError(f"{name!r} is not OWNER/NAME", hint="such as me/my-nanochat")
    model = HubModel(name)
    account, page = model.account(), model.page()
    if page.exists and page.private and public:
        raise ConfigError(
            f"{model.address} is private", hint="make it public on its page, or leave out --public"
        )
    return PushTarget(model, account, public)


def push_model(
    target: PushTarget,
    store: Store,
    scratch: Path,
    ref: str,
    form: Forms,
    choice: Choice,
    *,
    signed: Callable[[Path], None] | None,
    yes: bool,
) -> Pushed:
    """Send what a page lacks of a model, once the user has agreed."""
    from flows.models.pushed_files import gather
    from nanochat.publish.hub_upload import unsent

    model, page = target.model, target.model.page()  # as it is now, which may be hours later
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="push-") as made:
        folder = Path(made) / "model"
        paths = gather(store, ref, form, choice, folder, account=signed is not None)
        left = unsent(folder, paths, page.marks)
        if _needs_signature(model, page, left, signed is not None) and signed:
            _refuse_uncovered(model, page, paths)
            signed(folder)
            left.append(FILE_NAME)
        if left and not yes:
            _ask(target, page, folder, left)
        private = not target.public
        commit = model.send(folder, left, page, private=private, message=_MESSAGE) if left else None
    return Pushed(model.address, commit, left, paths + [FILE_NAME] * (signed is not None))


def _needs_signature(model: HubModel, page: HubPage, left: Sequence[str], signed: bool) -> bool:
    """Return whether a page gets a signature; one of files that stay as they are stays as well.

    Raises ConfigError where files would change below a signature that stays.
    """
    if FILE_NAME not in page.marks:
        return signed
    if left and not signed:
        raise ConfigError(
            f"{model.address} is signed, and {left[0]} would no longer fit", hint="sign it: --sign KEY"
        )
    return bool(left)


def _refuse_uncovered(model: HubModel, page: HubPage, paths: Sequence[str]) -> None:
    """Raise ConfigError for a page with files that a signature over these would not cover."""
    if besides := sorted(filter(covers, page.marks.keys() - set(paths))):
        raise ConfigError(
            f"{model.address} has {', '.join(besides)} besides, which would not be signed",
            hint="delete that on the page, or push all its forms again: --format both",
        )


def _ask(target: PushTarget, page: HubPage, folder: Path, paths: Sequence[str]) -> None:
    """Print what will be where; end with ConfigError unless the user agrees."""
    private = page.private if page.exists else not target.public
    output.say(
        f"{target.model.address} ({'there' if page.exists else 'new'}), as {target.account};"
        f" {'only those who may read it' if private else 'everybody'} will see:"
    )
    for path in paths:
        output.say(f"  {path:<32} {bytes_text((folder / path).stat().st_size):>10}")
    if not sys.stdin.isatty():
        raise ConfigError("nothing was pushed: nobody was asked", hint="agree with --yes")
    if not typer.confirm("Push?", err=True):
        raise ConfigError("nothing was pushed")
