"""The `fieldguide` command, for what is not a stage."""

from __future__ import annotations

import os
import sys

import typer

from fieldguide.commands import (
    audit,
    check,
    inference,
    registry,
    remote,
    report,
    review,
    sweep,
    verify,
)
from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.output import accept_any_text

# `--help` answers at once, because commands import what is heavy when they run, and because it is
# plain text: Typer's frames load a Markdown parser and a highlighter, longer than all the rest.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(inference.app)
app.add_typer(audit.app)
app.add_typer(check.app)
app.add_typer(report.app)
app.add_typer(review.app)
app.add_typer(verify.app)
app.add_typer(registry.app)
app.add_typer(remote.app, name="remote")
app.add_typer(sweep.app, name="sweep")


@app.callback()
def fieldguide() -> None:
    """Labelled photos in; a trained and explained image classifier out."""


def main() -> None:
    """Run the command; a mistake is a message and exit status 1."""
    accept_any_text()
    try:
        app()
    except BrokenPipeError:  # as by `| head`; nothing is left to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except FieldguideError as err:
        print(printable(f"fieldguide: {err}"), file=sys.stderr)
        sys.exit(1)
    except OSError as err:  # as of a folder where nothing may be written
        name = err.filename2 or err.filename
        where = f"{name}: " if name else ""
        print(printable(f"fieldguide: {where}{err.strerror or err}"), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
