"""Show an outcome: a table for people, JSON for programs, Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import printable
from fieldguide.gate.outcome import VERDICTS, CheckResult, Outcome, Status
from fieldguide.pages.markdown import escape, folded, join, table
from fieldguide.results.numbers import number, p_value, signed

_COLUMNS = ("check", "reference", "candidate", "change", "interval", "p", "")
_ALIGN = "lrrrrrl"
_MOST_CLASSES = 12  # if more classes pass, only those nearest to failing are shown
_SHOWN_CLASSES = 5
_STYLES = {Status.FAILED: "bold red", Status.IMPOSSIBLE: "bold yellow", Status.UNTESTED: "yellow"}
_SIGNS = ("✅", "❌", "⚠️")  # by exit status


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the content of `--json`."""
    status = outcome.exit_status
    return {"verdict": VERDICTS[status], "exit_status": status, **asdict(outcome)}


def print_table(outcome: Outcome, console: Console) -> None:
    """Print every check, then the verdict and its reasons."""
    if outcome.checks:
        shown, hidden = _selection(outcome.checks)
        grid = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)  # fits 80 columns
        for column, letter in zip(_COLUMNS, _ALIGN, strict=True):
            grid.add_column(column, justify="right" if letter == "r" else "left", overflow="fold")
        for one in shown:
            grid.add_row(*map(printable, _cells(one)), style=_STYLES.get(one.status))
        console.print()
        console.print(grid)
        console.print()
        if hidden:
            console.print(hidden, soft_wrap=True)
    head, *details = _summary(outcome)
    for line in (head, *(f"  {detail}" for detail in details)):
        console.print(printable(line), soft_wrap=True)


def markdown(outcome: Outcome) -> str:
    """Return the content of `--markdown`: a heading, the reasons, and the folded table."""
    head, *details = _summary(outcome)
    checks = ""
    if outcome.checks:
        shown, hidden = _selection(outcome.checks)
        rows = [[escape(cell) for cell in _cells(one)] for one in shown]
        content = join(table(_COLUMNS, rows, _ALIGN), hidden)
        checks = folded(f"{len(outcome.checks)} checks", content)
    reasons = "\n".join(f"- {escape(line)}" for line in details)
    return join(f"### {_SIGNS[outcome.exit_status]} {escape(head)}", reasons, checks) + "\n"


def _summary(outcome: Outcome) -> list[str]:
    """Return a line with the verdict, then a line for each reason and note."""
    between = f"{outcome.candidate} against {outcome.reference}"
    if outcome.refused:
        return [f"Not compared: {between}", outcome.refused]
    failed, impossible = outcome.of(Status.FAILED), outcome.of(Status.IMPOSSIBLE)
    untested = outcome.of(Status.UNTESTED)
    count = len(outcome.checks)
    tested = f"{count - len(untested)} of {count} checks" if untested else f"{count} checks"
    photos = "" if outcome.photos is None else f", on the same {outcome.photos:,} test photos"
    head = (
        f"No regression in {tested}: {between}{photos}",
        f"Regression in {len(failed)} of {count} checks: {between}{photos}",
        f"Not compared in {len(impossible)} of {count} checks: {between}",
    )[outcome.exit_status]
    return [head, *(one.reason for one in (*failed, *impossible, *untested)), *outcome.notes]


def _selection(results: Sequence[CheckResult]) -> tuple[list[CheckResult], str]:
    """Return the results to show, and a line about the others.

    Of many classes that pass, only those nearest to failing are shown.
    """
    passing = [
        one for one in results if one.name.startswith("recall.") and one.status is Status.PASSED
    ]
    if len(passing) <= _MOST_CLASSES:
        return list(results), ""
    passing.sort(key=lambda one: (1.0 if one.p is None else one.p, one.change or 0.0))
    hidden = {one.name for one in passing[_SHOWN_CLASSES:]}
    shown = [one for one in results if one.name not in hidden]
    return shown, f"and {len(hidden)} more classes, all further from failing"


def _cells(one: CheckResult) -> list[str]:
    interval = "" if one.low is None else f"{signed(one.low)} to {signed(one.high)}"
    return [
        one.name,
        number(one.reference),
        number(one.candidate),
        signed(one.change, same_scale_as=one.candidate),
        interval,
        p_value(one.p).replace(" ", ""),
        one.status,
    ]
