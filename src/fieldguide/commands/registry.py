"""`fieldguide release`, `assign`, `unassign` and `releases`: the model registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import printable
from fieldguide.core.output import print_utf8

if TYPE_CHECKING:
    from fieldguide.registry.release import Done

app = typer.Typer()

Version = Annotated[str, typer.Argument(metavar="VERSION", help="like v1.2.0")]
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="like prod")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="of the Git tags")]
Push = Annotated[bool, typer.Option("--push", help="push to the Git remote, all or nothing")]


@app.command()
def release(
    version: Version,
    stage: Annotated[str | None, typer.Option(help="assign it to this stage too")] = None,
    message: Message = None,
    push: Push = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check, print the model card, write nothing")
    ] = False,
) -> None:
    """Register the committed classifier as a version.

    Its model card is committed with it.
    """
    from fieldguide.registry.model_card import CARD
    from fieldguide.registry.release import release as make

    done = make(
        Path(), version, stage=stage, message=message, push=push and not dry_run, dry_run=dry_run
    )
    if done.card is not None:
        print_utf8()
        print(done.card, end="")
        return
    if done.committed:
        _say("Card", f"{CARD}, committed as {done.commit[:7]}")
    _say_tags(done, f"{version} is there already")
    _say_next(done, push)
    _say("Use", f"fieldguide predict --model {stage or version} photo.jpg")


@app.command()
def assign(version: Version, stage: Stage, message: Message = None, push: Push = False) -> None:
    """Assign a stage to a version, also an older one."""
    from fieldguide.registry.release import assign as make

    done = make(Path(), version, stage, message=message, push=push)
    _say_tags(done, f"{stage} is {version} already")
    _say_next(done, push)
    _say("Use", f"fieldguide predict --model {stage} photo.jpg")


@app.command()
def unassign(stage: Stage, message: Message = None, push: Push = False) -> None:
    """Leave a stage without a version."""
    from fieldguide.registry.release import unassign as make

    done = make(Path(), stage, message=message, push=push)
    _say_tags(done, f"{stage} has no version already")
    _say_next(done, push)


@app.command()
def releases() -> None:
    """List versions, stages and test accuracy, the newest first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fieldguide.registry.listing import list_releases

    rows = list_releases(Path())
    if not rows:
        print("No version is registered yet. Register one: fieldguide release v0.1.0")
        return
    table = Table("version", "stages", "test accuracy", "registered", "commit", box=None)
    for row in rows:
        stages = ", ".join(row.stages) or "–"
        cells = (row.version, stages, row.accuracy or "–", row.date, row.commit[:7])
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(soft_wrap=True).print(table)


def _say(what: str, text: str) -> None:
    print(printable(f"{what:<6} {text}"))


def _say_tags(done: Done, otherwise: str) -> None:
    for tag in done.tags:
        _say("Tag", f"{tag} on {done.commit[:7]}")
    if not done.tags:
        _say("Tag", otherwise)


def _say_next(done: Done, push: bool) -> None:  # noqa: FBT001
    if done.pushed_to is not None:
        _say("Pushed", f"to {done.pushed_to}")
    elif not push:
        _say("Next", "run the same command with --push, so that others see it")
