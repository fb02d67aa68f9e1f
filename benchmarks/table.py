"""The table of docs/benchmarks.md and its short form in the README."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from results import Machine, Result
from side_by_side import OURS, Row

START, END = "<!-- bench -->", "<!-- /bench -->"
NOT_MEASURED = "not measured"


def full_table(results: Sequence[Result]) -> str:
    """Return every contender's median and spread, row by row, and the machines."""
    machines = _machines(results)
    lines = [
        "| work | fieldguide | others | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        row = result.row
        others = [f"{name} {spread(row, name)}" for name in row.measured if name != OURS]
        others += [f"{name}: {why}" for name, why in row.left_out.items()]
        note = _note(result, machines)
        cells = (
            f"{row.work} ({row.unit}){note}",
            spread(row, OURS),
            "<br>".join(others) or "–",
            ratio(row),
            target(row),
            verdict(row),
        )
        lines.append(_line(cells))
    lines += ["", "Median over the repeats, smallest and largest in brackets."]
    lines += ["", "| work | what limits it now |", "| --- | --- |"]
    lines += [_line((result.row.work, result.row.limit)) for result in results]
    lines += ["", *_legend(machines)]
    return "\n".join(lines)


def short_table(results: Sequence[Result]) -> str:
    """Return one line a row: fieldguide, what it is compared with, ratio, target, met or missed."""
    machines = _machines(results)
    lines = [
        "| work | fieldguide | beside it | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        row = result.row
        beside = "–"
        if row.against is not None:
            beside = f"{row.against} {median(row, row.against)}".strip()
        if not row.measured:
            beside = row.against or "–"
        ours = f"{median(row, OURS)} {row.unit}" if row.measured else "–"
        cells = (
            f"{row.work}{_note(result, machines)}",
            ours,
            beside,
            ratio(row),
            target(row),
            verdict(row),
        )
        lines.append(_line(cells))
    return "\n".join([*lines, "", *_legend(machines)])


def insert(file: Path, text: str) -> bool:
    """Put `text` between the markers of a file; False where it has none.

    Raises:
        SystemExit: there is a first marker without a second one.
    """
    from fieldguide.files import write_text

    old = file.read_text(encoding="utf-8")
    if START not in old:
        return False
    before, _, rest = old.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{file}: found {START} without {END}")
    write_text(file, f"{before}{START}\n{text}\n{END}{after}")
    return True


def number(value: float) -> str:
    """Three digits that matter."""
    if math.isinf(value):
        return "never"
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def median(row: Row, name: str) -> str:
    """Median of a contender's repeats; nothing where it was not measured."""
    values = row.measured.get(name)
    return number(statistics.median(values)) if values else ""


def spread(row: Row, name: str) -> str:
    """Median and, of several repeats, the smallest and the largest."""
    values = row.measured.get(name)
    if not values:
        return NOT_MEASURED
    middle = number(statistics.median(values))
    return f"{middle} ({number(min(values))}–{number(max(values))})" if len(values) > 1 else middle


def ratio(row: Row) -> str:
    """What is held against the bound."""
    if not row.measured:
        return "–"
    return f"{number(row.ratio)} {row.unit if row.against is None else '×'}"


def target(row: Row) -> str:
    """Return the bound in words."""
    sign, unit = "≥" if row.at_least else "≤", "×" if row.against is not None else row.unit
    of = f" {row.against}" if row.against is not None else ""
    return f"{sign} {row.bound:g} {unit}{of}"


def verdict(row: Row) -> str:
    """Met, missed or not measured."""
    if not row.measured:
        return NOT_MEASURED
    return "met" if row.met else "**missed**"


def _machines(results: Sequence[Result]) -> list[Machine]:
    """Machines and days in the order of their first row."""
    return list({r.machine.describe(): r.machine for r in results if r.row.measured}.values())


def _note(result: Result, machines: list[Machine]) -> str:
    """Mark of the row's machine where there are several."""
    if len(machines) < 2 or not result.row.measured:  # noqa: PLR2004
        return ""
    names = [machine.describe() for machine in machines]
    return f" [{names.index(result.machine.describe()) + 1}]"


def _legend(machines: list[Machine]) -> list[str]:
    if len(machines) == 1:
        return [f"Measured on {machines[0].describe()}."]
    return [
        f"[{k}] {machine.describe()}" + ("" if k == len(machines) else "  ")
        for k, machine in enumerate(machines, start=1)
    ]


def _line(cells: Sequence[str]) -> str:
    return (
        "| "
        + " | ".join(re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|") for cell in cells)
        + " |"
    )
