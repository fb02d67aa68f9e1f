"""`fieldguide remote`: what really lies on a DVC remote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import GitError, RevisionError, printable

if TYPE_CHECKING:
    from fieldguide.remotes.look import Advance
    from fieldguide.remotes.verify import Report

app = typer.Typer(no_args_is_help=True, help="See what really lies on a DVC remote.")
ROOT = Path()  # commands run in the project's top folder, as dvc repro does
SHOWN = 20  # findings a remote; a bucket that was emptied has thousands


@app.callback()
def group() -> None:
    """See what really lies on a DVC remote."""


@app.command("verify")
def verify_remote(
    *,
    remote: Annotated[str | None, typer.Option(help="its name; else DVC's default one")] = None,
    rev: Annotated[
        list[str] | None,
        typer.Option(help="a commit, tag, version or experiment; again for more; else as it lies"),
    ] = None,
    all_branches: Annotated[bool, typer.Option("--all-branches")] = False,
    all_tags: Annotated[bool, typer.Option("--all-tags")] = False,
    all_commits: Annotated[bool, typer.Option("--all-commits")] = False,
    all_experiments: Annotated[bool, typer.Option("--all-experiments")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="download every object and hash it again")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="upload from the local cache what is not right")
    ] = False,
) -> None:
    """Compare every hash of the project with what lies on the remote.

    Of dvc.lock and of the .dvc files.

    Exit status: 0 all there, 1 something missing or damaged, 2 it cannot be checked.
    """
    from fieldguide.remotes.verify import verify
    from fieldguide.remotes.wanted import Scope
    from fieldguide.results.revision import find_revision
    from fieldguide.results.storage import RemoteError

    try:
        found = [find_revision(name, ROOT) for name in rev or ()]
        scope = Scope(
            tuple(one.rev for one in found if one.rev is not None),
            all_branches=all_branches,
            all_tags=all_tags,
            all_commits=all_commits,
            all_experiments=all_experiments,
        )
        with _progress() as advance:
            report = verify(ROOT, scope, remote=remote, deep=deep, repair=repair, advance=advance)
    except (RemoteError, RevisionError, GitError) as err:
        print(printable(f"fieldguide: {err}"), file=sys.stderr)
        raise typer.Exit(2) from err
    print(printable(_described(report, deep=deep, repair=repair)))
    if not report.complete:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    # Where nobody watches, it would leave an empty line.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("Listing", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield advance


def _described(report: Report, *, deep: bool, repair: bool) -> str:
    lines = []
    for name, url in report.urls.items():
        lines += [f"remote {name}  {url}", ""]
    width = max((len(str(one.use)) for one in report.outs), default=0)
    if report.outs:
        lines.append(f"{'out':<{width}}  objects         size  state")
    for one in report.outs:
        state = f"{one.wrong} of {one.objects} not right" if one.wrong else "ok"
        lines.append(f"{one.use!s:<{width}}  {one.objects:>7}  {one.size / 1e6:>8,.2f} MB  {state}")
    for finding in report.findings[:SHOWN]:
        state = f"{finding.state}, uploaded again" if finding.repaired else finding.state
        note = f" ({finding.note})" if finding.note else ""
        lines += ["", f"{finding.key.oid}  {state}{note}"]
        lines += [f"  {use}" for use in finding.uses[:SHOWN]]
    if len(report.findings) > SHOWN:
        lines += ["", f"and {len(report.findings) - SHOWN} more"]
    for path, uses in report.damaged_here.items():
        lines += ["", f"damaged in the local cache: {path}", *(f"  {use}" for use in uses[:SHOWN])]
    if report.damaged_here:
        lines.append("Delete these files, in the cache and in the workspace; then `dvc pull`.")
    for name in report.trusted:
        lines += [
            "",
            f"DVC does not check what it pulls from {name}: a pull that is cut leaves half a file",
            f"that it takes as whole. Once: dvc remote modify {name} verify true",
        ]
    for reason, uses in report.left_out.items():
        lines += ["", f"not looked for ({reason}): {', '.join(map(str, uses))}"]
    return "\n".join([*lines, "", _conclusion(report, deep=deep, repair=repair)])


def _conclusion(report: Report, *, deep: bool, repair: bool) -> str:
    how = "downloaded and hashed" if deep else "listed"
    total = f"{report.objects} objects {how}, {report.size / 1e6:,.2f} MB"
    wrong = [one for one in report.findings if not one.repaired]
    mended = len(report.findings) - len(wrong)
    if not report.findings:
        return f"{total}: all there" + ("" if deep else "; --deep hashes them too")
    if not wrong:
        return f"{total}: {mended} uploaded again, now all there"
    counted = f"{total}: {len(wrong)} missing or damaged" + (f", {mended} mended" if mended else "")
    if repair:
        return (
            f"{counted}\n--repair needs an intact copy in the cache: on the machine that made it, "
            "or here after\n`dvc commit` of files that lie in the workspace, or `dvc repro --force`"
        )
    return f"{counted}\nfieldguide remote verify --repair uploads them from this machine's cache."
