"""Write the table of docs/benchmarks.md and its short form in the README."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from results_file import Machine, Result
from side_by_side import OURS, Row

# Rows of the README's table, and what a newcomer calls them.
IN_README = {
    "training epoch at 64 pixels, the faster of fastai and timm": "train an epoch, 64 pixels",
    "augmented batches of 64 at 64 pixels": "load and augment photos, 64 pixels",
    "from start to the original recipe's final validation accuracy": (
        "train until the validation accuracy is that of the course work's recipe"
    ),
    "prepare, photos of 500×375 pixels to 64": "decode photos and make the splits, once",
    "predict of one photo, 32 pixels": "classify a photo from the shell",
}


def full_table(results: Sequence[Result]) -> str:
    """Return the table with the median and spread of every contender, and the machines."""
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
    lines += ["", "| work, and rows like it | what limits it now |", "| --- | --- |"]
    works = {result.row.limit: result.row.work for result in reversed(results)}  # the first of each
    lines += [_line((work, limit)) for limit, work in reversed(works.items())]
    lines += ["", *_legend(machines)]
    return "\n".join(lines)


def short_table(results: Sequence[Result]) -> str:
    """Return the rows of the README: what a newcomer compares, met and missed."""
    found = {result.row.work: result for result in results}
    shown = [(found[work], plain) for work, plain in IN_README.items() if work in found]
    machines = _machines([result for result, _ in shown])
    lines = [
        "| work | fieldguide | instead | fieldguide needs | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result, plain in shown:
        row = result.row
        cells = (
            f"{plain}{_note(result, machines)}",
            f"{median(row, OURS)} {row.unit}",
            f"{row.against} {median(row, str(row.against))} {row.unit}",
            f"{_time(row, row.ratio)} of the time",
            f"at most {_time(row, row.bound)}: {verdict(row)}",
        )
        lines.append(_line(cells))
    return "\n".join([*lines, "", *_legend(machines)])


def _time(row: Row, ratio: float) -> str:
    """Return a ratio of a row as one of times, in percent."""
    return f"{1 / ratio if row.at_least else ratio:.0%}"


def insert(file: Path, text: str, marker: str = "bench") -> bool:
    """Replace the text between <!-- marker --> and <!-- /marker -->; return False without them.

    Raises:
        SystemExit: the first marker has no second one.
    """
    from fieldguide.core.files import write_text

    old = file.read_text(encoding="utf-8")
    start, stop = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if start not in old:
        return False
    before, _, rest = old.partition(start)
    _, end, after = rest.partition(stop)
    if not end:
        raise SystemExit(f"{file}: found {start} without {stop}")
    write_text(file, f"{before}{start}\n{text}\n{stop}{after}")
    return True


def number(value: float) -> str:
    """Format a number with three significant digits."""
    if math.isinf(value):
        return "never"
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def median(row: Row, name: str) -> str:
    """Return the median of a contender's repeats; empty if it was not measured."""
    values = row.measured.get(name)
    return number(statistics.median(values)) if values else ""


def spread(row: Row, name: str) -> str:
    """Return a contender's median and, if it has several repeats, the smallest and largest."""
    values = row.measured[name]
    middle = number(statistics.median(values))
    return f"{middle} ({number(min(values))}–{number(max(values))})" if len(values) > 1 else middle


def ratio(row: Row) -> str:
    """Return the row's ratio with its unit."""
    return f"{number(row.ratio)} {row.unit if row.against is None else '×'}"


def target(row: Row) -> str:
    """Return the row's target with its unit."""
    sign, unit = "≥" if row.at_least else "≤", "×" if row.against is not None else row.unit
    of = f" {row.against}" if row.against is not None else ""
    return f"{sign} {row.bound:g} {unit}{of}"


def verdict(row: Row) -> str:
    """Return "met" or "missed"."""
    return "met" if row.met else "**missed**"


def _machines(results: Sequence[Result]) -> list[Machine]:
    """Return the distinct machines and dates, in the order of their first row."""
    return list({r.machine.describe(): r.machine for r in results}.values())


def _note(result: Result, machines: list[Machine]) -> str:
    """Return the number of the row's machine, if there are several machines."""
    if len(machines) < 2:  # noqa: PLR2004
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
