"""Print the counts of a prepared store, and write them as metrics and plots."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import printable
from fieldguide.core.files import write_csv, write_json
from fieldguide.core.store import SPLITS
from fieldguide.prepare.prepare import Prepared

_REASONS = ("unreadable", "too small", "too large", "duplicate", "misplaced")
_SHOWN = 10  # photos left out that are printed


def write_counts(prepared: Prepared, *, metrics: Path, classes: Path, left_out: Path) -> None:
    """Print and write the photos of each class and split, and those left out by reason.

    Args:
        prepared: what to count.
        metrics: JSON file for the photos of each split and the number left out.
        classes: CSV file with class, split, photos.
        left_out: CSV file with reason, photos.
    """
    totals = {split: sum(prepared.counts[split].values()) for split in SPLITS}
    reasons = Counter(item.reason for item in prepared.left_out)
    write_json(metrics, {"photos": {**totals, "left_out": reasons.total()}})
    rows = [
        [label, split, prepared.counts[split][label]]
        for label in prepared.classes
        for split in SPLITS
    ]
    write_csv(classes, ["class", "split", "photos"], rows)
    write_csv(left_out, ["reason", "photos"], [[reason, reasons[reason]] for reason in _REASONS])
    _print(prepared, totals, reasons)


def _print(prepared: Prepared, totals: dict[str, int], reasons: Counter[str]) -> None:
    table = Table("class", box=box.SIMPLE_HEAD, show_footer=True)
    table.columns[0].footer = "all"
    for split in SPLITS:
        table.add_column(split, justify="right", footer=f"{totals[split]:,}")
    for label in prepared.classes:
        table.add_row(label, *(f"{prepared.counts[split][label]:,}" for split in SPLITS))
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(
        "left out: "
        + ", ".join(f"{reasons[reason]:,} {reason}" for reason in _REASONS)
        + (f"; {prepared.other_files:,} other files ignored" if prepared.other_files else "")
    )
    for item in prepared.left_out[:_SHOWN]:
        line = f"  {item.source}: {item.reason} ({item.detail})"
        console.print(printable(line), soft_wrap=True)
    if len(prepared.left_out) > _SHOWN:
        console.print("  the rest is in data/prepared/dataset.json")
