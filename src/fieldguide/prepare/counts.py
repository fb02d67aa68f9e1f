"""The counts that `prepare` prints and writes as metrics and plots."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import printable
from fieldguide.core.files import write_csv, write_json
from fieldguide.core.store import SPLITS
from fieldguide.prepare.prepare import Prepared

_REASONS = ("unreadable", "too small", "too large", "duplicate", "misplaced")
_SHOWN = 10


class Outputs(NamedTuple):
    """Where `write_counts` writes."""

    metrics: Path  # JSON: photos of each split, and how many were left out
    classes: Path  # CSV: class, split, photos
    left_out: Path  # CSV: reason, photos


def write_counts(prepared: Prepared, outputs: Outputs) -> None:
    """Print and write the photos of each class and split, and those left out by reason."""
    totals = {name: sum(prepared.counts[name].values()) for name in SPLITS}
    left_out = Counter(item.reason for item in prepared.left_out)
    write_json(outputs.metrics, {"photos": {**totals, "left_out": left_out.total()}})
    rows = [
        [label, name, prepared.counts[name][label]] for label in prepared.classes for name in SPLITS
    ]
    write_csv(outputs.classes, ["class", "split", "photos"], rows)
    reasons = [[reason, left_out[reason]] for reason in _REASONS]
    write_csv(outputs.left_out, ["reason", "photos"], reasons)
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
