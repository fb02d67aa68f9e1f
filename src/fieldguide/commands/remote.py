"""`fieldguide remote`: what really lies on a DVC remote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import FieldguideError, printable

if TYPE_CHECKING:
    from fieldguide.remotes.objects import Advance
    from fieldguide.remotes.verify import Report

app = typer.Typer(no_args_is_help=True)
_SHOWN = 20  # findings, and uses of one; a bucket that was emptied has thousands


@app.callback()
def group() -> None:
    """See what really lies on a DVC remote."""


@app.command("verify")
def verify_remote(
    *,
    remote: Annotated[str | None, typer.Option(help="its name; else DVC's default one")] = None,
    rev: Annotated[
        list[str] | None,
        typer.Option(
            help="a commit, tag, version, stage or experiment; may be repeated; else the workspace"
        ),
    ] = None,
    all_branches: Annotated[bool, typer.Option("--all-branches")] = False,
    all_tags: Annotated[bool, typer.Option("--all-tags")] = False,
    all_commits: Annotated[bool, typer.Option("--all-commits")] = False,
    all_experiments: Annotated[bool, typer.Option("--all-experiments")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="download and hash every object")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="upload what is not right from the local cache")
    ] = False,
) -> None:
    """Compare every hash with what lies on the remote.

    The hashes are those of dvc.lock and the .dvc files.

    Exit status: 0 if all is there, 1 if something is missing or damaged, 2 if it cannot be checked.
    """
    from fieldguide.remotes.verify import verify
    from fieldguide.results.dvc import Scope
    from fieldguide.results.revision import find_revision

    root = Path()
    try:
        found = [find_revision(name, root) for name in rev or ()]
        scope = Scope(
            {one.rev: one.name for one in found if one.rev is not None},
            all_branches=all_branches,
            all_tags=all_tags,
            all_commits=all_commits,
            all_experiments=all_experiments,
        )
        with _progress() as advance:
            report = verify(root, scope, remote=remote, deep=deep, repair=repair, advance=advance)
    except FieldguideError as err:
        print(printable(f"fieldguide: {err}"), file=sys.stderr)
        raise typer.Exit(2) from err
    lines = [*_outputs(report), *_findings(report), *_notes(report), ""]
    print(printable("\n".join([*lines, _conclusion(report, deep=deep, repair=repair)])))
    if not report.complete:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    # Disabled without a terminal, where it would leave an empty line.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("Listing", total=None)

        def advance(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        yield advance


def _outputs(report: Report) -> Iterator[str]:
    for name, url in report.urls.items():
        yield from (f"remote {name}  {url}", "")
    width = max((len(str(one.use)) for one in report.outputs), default=3)
    if report.outputs:
        yield f"{'out':<{width}}  objects         size  state"
    for one in report.outputs:
        state = f"{one.wrong} of {one.objects} not right" if one.wrong else "ok"
        yield f"{one.use!s:<{width}}  {one.objects:>7}  {one.size / 1e6:>8,.2f} MB  {state}"


def _findings(report: Report) -> Iterator[str]:
    for one in report.findings[:_SHOWN]:
        state = f"{one.state}, uploaded again" if one.repaired else one.state
        yield from ("", f"{one.md5}  {state}" + (f" ({one.note})" if one.note else ""))
        yield from (f"  {use}" for use in one.uses[:_SHOWN])
    if len(report.findings) > _SHOWN:
        yield from ("", f"and {len(report.findings) - _SHOWN} more")
    for path, uses in report.damaged_here.items():
        yield from ("", f"damaged in the local cache: {path}")
        yield from (f"  {use}" for use in uses[:_SHOWN])
    if report.damaged_here:
        yield "Delete these files, in the cache and in the workspace; then `dvc pull`."


def _notes(report: Report) -> Iterator[str]:
    for name in report.trusted:
        yield ""
        yield f"DVC does not hash what it pulls from {name}: an interrupted pull can leave half a"
        yield f"file in the cache. To change that: dvc remote modify {name} verify true"
    for reason, uses in report.left_out.items():
        yield from ("", f"not looked for ({reason}): {', '.join(map(str, uses))}")


def _conclusion(report: Report, *, deep: bool, repair: bool) -> str:
    how = "downloaded and hashed" if deep else "looked for"
    total = f"{report.objects} objects {how}, {report.size / 1e6:,.2f} MB"
    wrong = sum(not one.repaired for one in report.findings)
    repaired = len(report.findings) - wrong
    if not report.findings:
        return f"{total}: all there" + ("" if deep else "; --deep hashes them too")
    if not wrong:
        return f"{total}: {repaired} uploaded again, now all there"
    counted = f"{total}: {wrong} missing or damaged"
    if not repair:
        return f"{counted}\n--repair uploads them from the local cache."
    return (
        f"{counted}, {repaired} uploaded again\n"
        "--repair needs an intact copy in the local cache. Run it on the machine that made the\n"
        "files, or here after `dvc commit` (if they lie in the workspace) or `dvc repro --force`."
    )
