"""Print the counts of a prepared store, and write them as metrics and plots."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import printable
from fieldguide.core.files import write_csv, write_json
from fieldguide.core.output import counted, cut
from fieldguide.core.store import SPLITS
from fieldguide.prepare.left_out import NOT_A_PHOTO, REASONS, LeftOut
from fieldguide.prepare.prepare import Counts, Prepared

_NAMES = 3  # files named of each group
_GROUPS = 30  # groups that are printed


def write_counts(prepared: Prepared, *, metrics: Path, classes: Path, left_out: Path) -> None:
    """Print and write the photos of each class and split, and the files left out by reason.

    Args:
        prepared: what to count.
        metrics: JSON file for the photos of each split and the number left out.
        classes: CSV file with class, split, photos, groups, near_copies.
        left_out: CSV file with reason, files.
    """
    reasons = Counter(item.reason for item in prepared.left_out)
    photos_left_out = reasons.total() - reasons[NOT_A_PHOTO]
    photos = {split: prepared.totals[split].photos for split in SPLITS}
    write_json(metrics, {"photos": {**photos, "left_out": photos_left_out}})
    rows = [
        [label, split, *prepared.counts[split][label]]
        for label in prepared.classes
        for split in SPLITS
    ]
    write_csv(classes, ["class", "split", *Counts._fields], rows)
    write_csv(left_out, ["reason", "files"], [[reason, reasons[reason]] for reason in REASONS])
    _print_counts(prepared)
    _print_left_out(prepared.left_out)
    for warning in prepared.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)


def _print_counts(prepared: Prepared) -> None:
    """Print the photos of each class and split, and groups and near-copies where there are any."""
    totals = prepared.totals
    table = Table("class", box=box.SIMPLE_HEAD, show_footer=True)
    table.columns[0].footer = "all"
    for split in SPLITS:
        table.add_column(split, justify="right", footer=f"{totals[split].photos:,}")
    in_three = "/".join(SPLITS)
    has_groups = any(total.groups < total.photos for total in totals.values())
    has_near_copies = any(total.near_copies for total in totals.values())
    for name, shown in (("groups", has_groups), ("near_copies", has_near_copies)):
        if shown:
            header = f"{name.replace('_', '-')}\n{in_three}"
            footer = _in_three(name, totals)
            table.add_column(header, justify="right", footer=footer)
    for label in prepared.classes:
        of_class = {split: prepared.counts[split][label] for split in SPLITS}
        cells = [f"{of_class[split].photos:,}" for split in SPLITS]
        cells += [_in_three("groups", of_class)] * has_groups
        cells += [_in_three("near_copies", of_class)] * has_near_copies
        table.add_row(printable(label), *cells)
    Console(highlight=False, markup=False, emoji=False).print(table)


def _in_three(name: str, counts: dict[str, Counts]) -> str:
    return "/".join(f"{getattr(counts[split], name):,}" for split in SPLITS)


def _print_left_out(left_out: Sequence[LeftOut]) -> None:
    """Print the number of files by reason and class, and a few of their names.

    Files that are not photos are also counted by their suffix.
    """
    if not left_out:
        print("no file left out")
        return
    groups: dict[tuple[str, str, str], list[LeftOut]] = defaultdict(list)
    for item in left_out:
        suffix = item.detail if item.reason == NOT_A_PHOTO else ""
        groups[item.reason, item.label, suffix].append(item)
    order = sorted(groups, key=lambda key: (REASONS.index(key[0]), -len(groups[key]), key))
    print(f"{counted(len(left_out), 'file')} left out, named in data/prepared/left_out.csv:")
    reason_width = max(len(reason) for reason, *_ in order)
    class_width = max(len(cut(label)) for _, label, _ in order)
    for key in order[:_GROUPS]:
        reason, label, _ = key
        items = groups[key]
        start = f"{len(items):>8,}  {reason:<{reason_width}}  {cut(label) or '-':<{class_width}}"
        print(printable(f"{start}  {_names(items)}"))
    if len(order) > _GROUPS:
        print(f"          and {len(order) - _GROUPS:,} more reasons and classes")


def _names(items: Sequence[LeftOut]) -> str:
    """Return a few names with their details; a detail that all share comes once."""
    shared = len({item.detail for item in items}) == 1
    names = [item.file if shared else f"{item.file} ({item.detail})" for item in items[:_NAMES]]
    shown = ", ".join(names + ["..."] * (len(items) > _NAMES))
    return f"{items[0].detail}: {shown}" if shared else shown
