"""Show an outcome: a table for people, JSON for machines, Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import printable
from fieldguide.gate.findings import Finding, Outcome, Status, Verdict
from fieldguide.gate.values import number, p_value, signed

_COLUMNS = ("check", "reference", "candidate", "change", "interval", "p", "")
_MOST_CLASSES = 12  # shown while they pass; of more only those nearest to failing
_SHOWN_CLASSES = 5
_STYLES = {Status.FAILED: "bold red", Status.IMPOSSIBLE: "bold yellow", Status.UNTESTED: "yellow"}


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return what `--json` writes."""
    return {
        "verdict": outcome.verdict,
        "exit_status": outcome.exit_status,
        **asdict(outcome),
    }


def print_table(outcome: Outcome, console: Console) -> None:
    """Print every check, then what failed."""
    if outcome.findings:
        shown, hidden = _selection(outcome.findings)
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)  # fits 80 columns
        for column in _COLUMNS:
            right = column in _COLUMNS[1:-1]
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for finding in shown:
            cells = [printable(cell) for cell in _cells(finding)]
            table.add_row(*cells, style=_STYLES.get(finding.status))
        console.print()
        console.print(table)
        console.print()
        if hidden:
            console.print(f"and {hidden} more classes, all further from failing", soft_wrap=True)
    for line in _summary(outcome):
        console.print(printable(line), soft_wrap=True)


def markdown(outcome: Outcome) -> str:
    """Return what `--markdown` writes: a heading, what failed, and the table folded away."""
    sign = {Verdict.PASSED: "✅", Verdict.REGRESSION: "❌", Verdict.NOT_COMPARED: "⚠️"}
    head, *details = _summary(outcome)
    lines = [f"### {sign[outcome.verdict]} {_escape(head)}"]
    if details:
        lines += ["", *(f"- {_escape(line.strip())}" for line in details)]
    if outcome.findings:
        shown, hidden = _selection(outcome.findings)
        lines += ["", f"<details><summary>{len(outcome.findings)} checks</summary>", ""]
        lines += ["| check | reference | candidate | change | interval | p | |"]
        lines += ["| :-- | --: | --: | --: | --: | --: | :-- |"]
        lines += [
            f"| {' | '.join(_escape(cell) for cell in _cells(finding))} |" for finding in shown
        ]
        if hidden:
            lines += ["", f"and {hidden} more classes, all further from failing"]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _summary(outcome: Outcome) -> list[str]:
    """A line with the verdict, then one for each reason."""
    between = f"{outcome.candidate} against {outcome.reference}"
    if outcome.refused:
        return [f"Not compared: {between}", f"  {outcome.refused}"]
    failed, impossible = outcome.of(Status.FAILED), outcome.of(Status.IMPOSSIBLE)
    count = len(outcome.findings)
    untested = len(outcome.of(Status.UNTESTED))
    tested = f"{count - untested} of {count} checks" if untested else f"{count} checks"
    photos = "" if outcome.photos is None else f", on the same {outcome.photos:,} test photos"
    head = {
        Verdict.PASSED: f"No regression in {tested}: {between}{photos}",
        Verdict.REGRESSION: f"Regression in {len(failed)} of {count} checks: {between}{photos}",
        Verdict.NOT_COMPARED: f"Not compared in {len(impossible)} of {count} checks: {between}",
    }[outcome.verdict]
    reasons = [*failed, *impossible, *outcome.of(Status.UNTESTED)]
    return [head, *(f"  {one.reason}" for one in reasons), *(f"  {note}" for note in outcome.notes)]


def _selection(findings: Sequence[Finding]) -> tuple[list[Finding], int]:
    """Leave out of many classes those that are far from failing; return how many."""
    passing = [
        finding
        for finding in findings
        if finding.name.startswith("recall.") and finding.status is Status.PASSED
    ]
    if len(passing) <= _MOST_CLASSES:
        return list(findings), 0
    passing.sort(key=lambda one: (1.0 if one.p is None else one.p, one.change or 0.0))
    hidden = {one.name for one in passing[_SHOWN_CLASSES:]}
    return [one for one in findings if one.name not in hidden], len(hidden)


def _cells(finding: Finding) -> list[str]:
    interval = "" if finding.low is None else f"{signed(finding.low)} to {signed(finding.high)}"
    return [
        finding.name,
        number(finding.reference),
        number(finding.candidate),
        signed(finding.change, beside=finding.candidate),
        interval,
        p_value(finding.p).replace(" ", ""),
        finding.status,
    ]


def _escape(text: str) -> str:
    """Names come from archives of strangers; a pull request's comment is no place for theirs."""
    text = printable(text).replace("\n", " ")
    text = re.sub(r"([\\`*_{}\[\]<>#|~!@&$]|:(?=//)|(?<=[Ww]{3})\.)", r"\\\1", text)
    return text.replace(r"\@", "@\u200b")  # Markdown cannot escape a mention
