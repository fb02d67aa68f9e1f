"""Write the table of docs/benchmarks.md and its short form in the README."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from results_file import Machine, Result
from side_by_side import OURS, Row

NOT_MEASURED = "not measured"


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
    """Return the short table; rows whose names differ in one word, such as a size, share a line."""
    machines = _machines(results)
    lines = [
        "| work | fieldguide | compared with | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group in _alike(results):
        rows = [result.row for result in group]
        works = zip(*(row.work.split() for row in rows), strict=True)
        work = " ".join(_joined(words) for words in works)
        measured = [row for row in rows if row.measured]
        ours = _joined(median(row, OURS) for row in measured)
        cells = (
            f"{work}{_note(group[0], machines)}",
            f"{ours} {rows[0].unit}" if measured else "–",
            _joined(_other(row) for row in rows),
            _joined(ratio(row) for row in rows),
            _joined(target(row) for row in rows),
            _joined(verdict(row) for row in rows),
        )
        lines.append(_line(cells))
    return "\n".join([*lines, "", *_legend(machines)])


def _alike(results: Sequence[Result]) -> list[list[Result]]:
    """Group rows of the same module, bound and machine whose names differ in one word only."""
    groups: list[list[Result]] = []
    for result in results:
        for group in groups:
            if _same_kind(group[0], result) and len(_differences([*group, result])) == 1:
                group.append(result)
                break
        else:
            groups.append([result])
    return groups


def _same_kind(one: Result, other: Result) -> bool:
    first, second = (
        (result.module, result.machine, bool(row.measured), row.unit, row.bound, row.at_least)
        for result, row in ((one, one.row), (other, other.row))
    )
    return first == second


def _differences(group: Sequence[Result]) -> set[int]:
    """Return the positions of words that differ between names; all if their lengths differ."""
    words = [result.row.work.split() for result in group]
    if len({len(line) for line in words}) > 1:
        return set(range(max(map(len, words))))
    return {k for k, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1}


def _other(row: Row) -> str:
    if row.against is None:
        return "–"
    return f"{row.against} {median(row, row.against)}".strip()


def _joined(cells: Iterable[str]) -> str:
    """Join cells by " / "; words that all cells share are written once."""
    found = list(cells)
    if len(set(found)) <= 1:
        return found[0] if found else ""
    words = [cell.split() for cell in found]
    if len({len(line) for line in words}) == 1 and len(_varying(words)) == 1:
        (k,) = _varying(words)
        middle = " / ".join(line[k] for line in words)
        return " ".join([*words[0][:k], middle, *words[0][k + 1 :]])
    return " / ".join(found)


def _varying(words: Sequence[Sequence[str]]) -> list[int]:
    return [k for k, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1]


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
    values = row.measured.get(name)
    if not values:
        return NOT_MEASURED
    middle = number(statistics.median(values))
    return f"{middle} ({number(min(values))}–{number(max(values))})" if len(values) > 1 else middle


def ratio(row: Row) -> str:
    """Return the row's ratio with its unit."""
    if not row.measured:
        return "–"
    return f"{number(row.ratio)} {row.unit if row.against is None else '×'}"


def target(row: Row) -> str:
    """Return the row's target with its unit."""
    sign, unit = "≥" if row.at_least else "≤", "×" if row.against is not None else row.unit
    of = f" {row.against}" if row.against is not None else ""
    return f"{sign} {row.bound:g} {unit}{of}"


def verdict(row: Row) -> str:
    """Return "met", "missed" or "not measured"."""
    if not row.measured:
        return NOT_MEASURED
    return "met" if row.met else "**missed**"


def _machines(results: Sequence[Result]) -> list[Machine]:
    """Return the distinct machines and dates, in the order of their first row."""
    return list({r.machine.describe(): r.machine for r in results if r.row.measured}.values())


def _note(result: Result, machines: list[Machine]) -> str:
    """Return the number of the row's machine, if there are several machines."""
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
