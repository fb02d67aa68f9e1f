"""`fieldguide verify`: rebuild a revision and compare every byte with what was committed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.commands.check import console_of_a_table
from fieldguide.core.errors import RevisionError, printable

if TYPE_CHECKING:
    from fieldguide.results.results import Results
    from fieldguide.verify.comparison import Row

app = typer.Typer()
ROOT = Path()


@app.command()
def verify(
    rev: Annotated[
        str, typer.Argument(help="a Git revision, experiment, stage or version")
    ] = "HEAD",
) -> None:
    """Rebuild a commit without any cache, and compare every byte.

    Exit status 0: the same bytes, or no worse where bytes cannot be the same; 1: other results.
    """
    from fieldguide.core.files import first_free_folder
    from fieldguide.results.results import need, read_results
    from fieldguide.verify.rebuild import clone, fetch_inputs, rebuild

    committed = read_results(rev, ROOT)
    commit = committed.revision.rev
    if commit is None:
        raise RevisionError("verify: found workspace; allowed: a commit, as HEAD; commit it first")
    lock = need(committed.lock)
    _say_what_is_not_verified()
    # Of fixed names, so that the next verify deletes what a killed one has left.
    with first_free_folder(ROOT.resolve() / ".fieldguide" / "verify") as folder:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            print(printable(f"Rebuilding {committed.label} without any cache"), file=sys.stderr)
            project = clone(ROOT, commit, folder)
            fetch_inputs(ROOT, project, lock)
            rebuild(project)
            same = _judge(committed, read_results("workspace", project), rev, project)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(0 if same else 1)


def _say_what_is_not_verified() -> None:
    from fieldguide.results.git import git

    if git(ROOT, "status", "--porcelain", "--untracked-files=no").strip():
        print("Uncommitted changes are not verified", file=sys.stderr)


def _judge(committed: Results, rebuilt: Results, rev: str, project: Path) -> bool:
    """Print the comparison; return whether the rebuilt results are as good as the same."""
    from fieldguide.verify.comparison import cause, compare

    rows = compare(committed, rebuilt)
    _print(rows)
    different = [row for row in rows if not row.is_same]
    if not different:
        print(f"Verified: {committed.label}, the same bytes in all {len(rows)} rows")
        return True
    first = different[0].path
    print(printable(f"Not the same bytes in {len(different)} of {len(rows)} rows, first {first}"))
    print(printable(f"Likely cause: {cause(different, committed, rebuilt)}"))
    if all(row.is_output and row.committed for row in different):
        for results in (committed, rebuilt):
            if not _is_portable(results):
                print(f"The results of {results.label} are not portable: compared photo by photo")
                return _paired_test(rev, project) == 0
    return False


def _print(rows: list[Row]) -> None:
    """Print the first characters of each hash; stages are separated by a line."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("stage", "file or folder", "committed", "rebuilt", ""):
        table.add_column(column)
    stage = None
    for row in rows:
        if stage not in (None, row.stage):
            table.add_section()
        table.add_row(
            "" if stage == row.stage else row.stage,
            printable(row.path),
            row.committed[:8],
            row.rebuilt[:8] or "none",
            "" if row.is_same else "differs",
        )
        stage = row.stage
    console_of_a_table().print(table)
    print()


def _is_portable(results: Results) -> bool:
    """Return whether the same bytes can be expected of another machine."""
    from fieldguide.results.results import known, need

    wanted = need(results.lock).params.get("compute.portable") is True
    # A processor without AVX2 writes false. If the file is missing, the params count.
    return wanted and known(results.environment, {}).get("portable", True) is True


def _paired_test(rev: str, project: Path) -> int:
    """Judge the rebuilt classifier as the gate does, and say by how much it may be worse."""
    from fieldguide.gate.compare import compare
    from fieldguide.gate.output import print_table

    outcome = compare(ROOT, rev, candidate="workspace", candidate_root=project)
    print_table(outcome, console_of_a_table())
    accuracy = next((one for one in outcome.checks if one.name == "test.acc"), None)
    if outcome.exit_status == 0 and accuracy is not None and accuracy.low is not None:
        print(
            "Not the same bytes; test accuracy is no worse by more than "
            f"{max(0.0, -accuracy.low):.1%} ({accuracy.confidence:.0%} interval)"
        )
    return min(outcome.exit_status, 1)
