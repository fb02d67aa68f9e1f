"""`fieldguide check`: fail if a model is worse than another one."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.output import print_utf8

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()

_STDOUT = Path("-")


@app.command()
def check(
    against: Annotated[
        str,
        typer.Option(metavar="REV", help="the reference: stage, version, revision, experiment"),
    ],
    candidate: Annotated[
        str, typer.Option(metavar="REV", help="the model to check: as above, or workspace")
    ] = "workspace",
    checks: Annotated[Path, typer.Option(help="file of what is required")] = Path("checks.yaml"),
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write JSON; - for stdout")
    ] = None,
    as_markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="write Markdown; - for stdout"),
    ] = None,
) -> None:
    """Fail if a model is worse than another one.

    Exit status 1: it is worse, 2: it cannot be compared.
    """
    try:
        status = _check(against, candidate, checks, as_json, as_markdown)
    except BrokenPipeError:  # as by `| head`; the comparison itself went well
        raise
    except (FieldguideError, OSError) as err:  # not exit status 1, which means a regression
        print(printable(f"fieldguide: {err}"), file=sys.stderr)
        raise typer.Exit(2) from err
    except Exception as err:  # a fault of our own says nothing about the model
        traceback.print_exc()
        raise typer.Exit(2) from err
    raise typer.Exit(status)


def _check(
    against: str, candidate: str, checks: Path, as_json: Path | None, as_markdown: Path | None
) -> int:
    from fieldguide.core.files import write_text
    from fieldguide.gate.compare import compare
    from fieldguide.gate.output import as_dict, markdown, print_table

    files = (as_json, as_markdown)
    if files == (_STDOUT, _STDOUT):
        raise FieldguideError("--json and --markdown: found - for both; allowed: for one of them")
    errors = console_of_a_table(stderr=True)
    with errors.status(printable(f"Reading {candidate} and {against}")):
        outcome = compare(Path(), against, candidate=candidate, checks=checks)
    # JSON has neither NaN nor infinity, and neither has an outcome.
    text = json.dumps(as_dict(outcome), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    documents = [(as_json, text), (as_markdown, markdown(outcome))]
    for path, document in documents:
        if path not in (None, _STDOUT):
            write_text(path, document)
    for path, document in documents:
        if path == _STDOUT:
            print_utf8()
            print(document, end="", flush=True)
    print_table(outcome, errors if _STDOUT in files or outcome.refused else console_of_a_table())
    return outcome.exit_status


def console_of_a_table(*, stderr: bool = False) -> Console:
    """Return a console that folds no log; `stderr`: where it prints."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:  # a log is not folded to a terminal's width
        console.width = 120
    return console
