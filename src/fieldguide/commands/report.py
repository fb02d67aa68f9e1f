"""`fieldguide report`: the results of a run for people without DVC."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fieldguide.core.errors import printable
from fieldguide.core.output import print_utf8

app = typer.Typer()
ROOT = Path()  # commands run in the project's folder, as dvc repro does


@app.command()
def report(
    *,
    rev: Annotated[
        str,
        typer.Option(
            help="run of the report: a Git revision, experiment, stage, version or workspace"
        ),
    ] = "workspace",
    against: Annotated[
        str | None, typer.Option(help="revision to compare with, such as main or prod")
    ] = None,
    output: Annotated[Path, typer.Option(help="file of the page")] = Path("plots/report.html"),
    markdown: Annotated[
        Path | None, typer.Option(help="file of a summary for CI; - for standard output")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="folder for the figures as PNG, which CI can publish")
    ] = None,
) -> None:
    """Write a run's results as one page, plots/report.html.

    It opens in any browser, without a network.
    """
    from fieldguide.core.files import write_text
    from fieldguide.report.pictures import write_pictures
    from fieldguide.report.run_report import read_report, render_markdown, render_page
    from fieldguide.results.results import read_results

    run = read_results(rev, ROOT)
    found = read_report(run, read_results(against, ROOT) if against is not None else None)
    write_text(output, render_page(found))
    text = render_markdown(found) if markdown is not None else ""
    if markdown is not None and markdown != Path("-"):
        write_text(markdown, text)
    if pictures is not None:
        write_pictures(found.pictures, pictures)

    out = sys.stderr if markdown == Path("-") else sys.stdout
    print(printable(", ".join(filter(None, (run.label, run.about)))), file=out)
    for one in found.missing:
        print(printable(f"  {one}"), file=out)
    size = output.stat().st_size / 1e6
    print(f"{output}  {size:,.1f} MB, {len(found.pictures)} figures", file=out)
    if markdown == Path("-"):
        print_utf8()
        print(text, end="")
    elif markdown is not None:
        print(markdown)
    if pictures is not None:
        print(f"{pictures}  {len(found.pictures)} pictures", file=out)
