"""The chart of the benchmarks: how far each row is above or below its target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results_file import Result
from side_by_side import Row
from table import ratio, target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MET, MISSED = "#2a7f62", "#c8553d"
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
MOST = 100.0  # times; longer bars are cut, because the others would become too short to see


def margin(row: Row) -> float:
    """Return how many times better than its target a row is; below 1 it misses the target."""
    if row.at_least:
        return row.ratio / row.bound
    return row.bound / row.ratio if row.ratio > 0 else math.inf


def draw(results: Sequence[Result]) -> Figure:
    """Draw one bar per row, on a logarithmic axis; every bar starts at the target."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    rows = [result.row for result in results]
    margins = [min(max(margin(row), 1 / MOST), MOST) for row in rows]
    figure = Figure(figsize=(11, 1.3 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    colours = [MET if row.met else MISSED for row in rows]
    # A row that meets its target exactly still gets a visible bar.
    widths = [value - 1 if abs(value - 1) > 0.01 else 0.01 for value in margins]  # noqa: PLR2004
    axes.barh(places, widths, left=1, color=colours, height=0.62)
    axes.set_xscale("log")
    low, high = min([*margins, 1.0]), max([*margins, 1.0])
    axes.set_xlim(low / 1.6, high * 4)  # room for the labels
    for place, row, value in zip(places, rows, margins, strict=True):
        axes.annotate(
            f"{ratio(row)}, target {target(row)}",
            (max(value, 1.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.axvline(1, color="#222222", linewidth=1)
    axes.set_yticks(places, [row.work for row in rows], fontsize=8.5)
    axes.invert_yaxis()
    left, right = axes.get_xlim()
    axes.set_xticks([tick for tick in TICKS if left <= tick <= right])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("better than the target by (1 × = the target)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    met = sum(row.met for row in rows)
    figure.suptitle(
        f"fieldguide side by side: {met} of {len(rows)} measured targets met", fontsize=13
    )
    return figure


def write(results: Sequence[Result], file: Path) -> None:
    """Write the chart as PNG, without a date in its metadata."""
    from fieldguide.core.files import aside

    file.parent.mkdir(parents=True, exist_ok=True)
    with aside(file) as partial:
        draw(results).savefig(
            partial, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None}
        )
