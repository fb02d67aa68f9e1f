"""What `prepare` tells: a table for people, a metric and a plot for DVC."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.data.prepare import Prepared
from fieldguide.data.store import SPLITS
from fieldguide.errors import printable
from fieldguide.files import write_csv, write_json

_REASONS = ("unreadable", "too small", "too large", "duplicate", "misplaced")
_SHOWN = 10


def report(prepared: Prepared, *, metrics: Path, plot: Path) -> None:
    """Print counts per class and split and what was left out; write both files."""
    totals = {name: sum(prepared.counts[name].values()) for name in SPLITS}
    left_out = Counter(item.reason for item in prepared.left_out)
    write_json(
        metrics,
        {
            "photos": totals,
            "left_out": {reason.replace(" ", "_"): left_out[reason] for reason in _REASONS},
            "classes": {
                label: {name: prepared.counts[name][label] for name in SPLITS}
                for label in prepared.classes
            },
        },
    )
    rows = [
        [label, name, prepared.counts[name][label]] for label in prepared.classes for name in SPLITS
    ]
    write_csv(plot, ["class", "split", "photos"], rows)
    _print(prepared, totals, left_out)


def _print(prepared: Prepared, totals: dict[str, int], left_out: Counter[str]) -> None:
    table = Table("class", box=box.SIMPLE_HEAD, show_footer=True)
    table.columns[0].footer = "all"
    for name in SPLITS:
        table.add_column(name, justify="right", footer=f"{totals[name]:,}")
    for label in prepared.classes:
        table.add_row(label, *(f"{prepared.counts[name][label]:,}" for name in SPLITS))
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(
        "left out: "
        + ", ".join(f"{left_out[reason]:,} {reason}" for reason in _REASONS)
        + (f"; {prepared.other_files:,} other files ignored" if prepared.other_files else "")
    )
    for item in prepared.left_out[:_SHOWN]:
        line = f"  {item.source}: {item.reason} ({item.detail})"
        console.print(printable(line), soft_wrap=True)
    if len(prepared.left_out) > _SHOWN:
        console.print("  the rest is in data/prepared/dataset.json")
