"""`fieldguide report`: a run's results for people without DVC."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import printable

if TYPE_CHECKING:
    from fieldguide.results.run import Run

app = typer.Typer()
ROOT = Path()  # commands run in the project's top folder, as dvc repro does


@app.command()
def report(
    *,
    rev: Annotated[
        str, typer.Option(help="of what: a Git revision, experiment, stage or version")
    ] = "workspace",
    against: Annotated[
        str | None, typer.Option(help="revision to compare with, as main or prod")
    ] = None,
    output: Annotated[Path, typer.Option(help="the page")] = Path("plots/report.html"),
    markdown: Annotated[
        Path | None, typer.Option(help="a summary for CI, too; - for standard output")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="folder for the figures as PNG, for CI to publish")
    ] = None,
) -> None:
    """Write a run's results as one page, plots/report.html.

    It opens anywhere.
    """
    from fieldguide.core.files import write_text
    from fieldguide.report.html import render
    from fieldguide.report.markdown import render_markdown
    from fieldguide.report.pictures import write_pictures
    from fieldguide.results.revision import find_revision
    from fieldguide.results.run import read_run

    run = read_run(find_revision(rev, ROOT))
    other = read_run(find_revision(against, ROOT), figures=False) if against is not None else None
    out = sys.stderr if markdown == Path("-") else sys.stdout
    write_text(output, render(run, other))
    what = f"{run.label}" + (f", against {other.label}" if other else "")
    print(printable(what), file=out)
    for path, text in [*run.notes.items(), *(other.notes.items() if other else ())]:
        print(printable(f"  {path}: {text}"), file=out)
    print(f"{output}  {output.stat().st_size / 1e6:,.1f} MB, {_figures(run)}", file=out)
    if markdown is not None:
        text = render_markdown(run, other)
        if out is sys.stderr:
            print(text, end="")
        else:
            write_text(markdown, text)
            print(markdown)
    if pictures is not None:
        written = write_pictures(run.figures, pictures)
        print(f"{pictures}  {len(written)} pictures", file=out)


def _figures(run: Run) -> str:
    return f"{len(run.figures)} figures; it opens in any browser, without a network"
