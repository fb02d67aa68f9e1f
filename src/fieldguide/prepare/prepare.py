"""From archives to the prepared store: read, decode, find copies, split, write."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.files import new_folder, write_csv, write_json
from fieldguide.core.params import DataParams
from fieldguide.core.store import FORMAT, SPLITS
from fieldguide.prepare.archives import open_archives
from fieldguide.prepare.assign import Assigned, assign
from fieldguide.prepare.chunks import Failure
from fieldguide.prepare.groups import given_groups
from fieldguide.prepare.labels import read_labels
from fieldguide.prepare.layout import Layout, read_layout
from fieldguide.prepare.left_out import COLUMNS, UNREADABLE, LeftOut
from fieldguide.prepare.looks import Looks
from fieldguide.prepare.most_alike import most_alike
from fieldguide.prepare.shards import write_shards
from fieldguide.prepare.staging import Staged, mean_and_std, stage_photos

_SHOWN = 10  # names listed in a message
_MIB = 2**20


class Prepared(NamedTuple):
    """What was written, for the report of the stage."""

    classes: list[str]
    counts: dict[str, dict[str, Counts]]  # split -> class -> counts
    totals: dict[str, Counts]  # of each split
    left_out: list[LeftOut]
    warnings: list[str]


class Counts(NamedTuple):
    """Counts of one class in one split."""

    photos: int
    groups: int  # a photo that belongs to no other one counts as a group
    near_copies: int  # photos that look like another photo of the split


def prepare(params: DataParams, target: Path) -> Prepared:
    """Write the prepared store; if it fails, nothing is left at `target`.

    All cores decode photos straight out of the archives into one file beside the store. Once the
    SHA-256 and the look of every photo are known, and which photos are broken, rows are copied to
    their shards. Memory holds names and hashes of all photos, but pixels of only a few.

    Raises:
        ArchiveError: see `open_archives`, `read_layout`, `read_labels` and `assign`; also if more
            than `data.max_unreadable` of the photos are unreadable.
    """
    with open_archives(params.archive) as archives, new_folder(target) as folder:
        if params.labels == "none":
            layout = read_layout(archives.shown, archives.members)
        else:
            layout = read_labels(params, archives)
        given = given_groups(layout.photos, params, layout.warnings)
        pixels, looks = Staged(folder / "staged", params.image_size), Looks(folder / "looks")
        members = [photo.member for photo in layout.photos]
        staged = stage_photos(archives, members, params, path=pixels.path, looks=looks.path)
        _check_unreadable(archives.shown, layout, staged.failures, params.max_unreadable)
        assigned = assign(
            layout.photos,
            staged.digests,
            staged.failures,
            staged.taken,
            params,
            given=given,
            looks=looks,
        )
        counts, totals = _counts(assigned)
        left_out = _left_out(layout, assigned)
        write_csv(folder / "left_out.csv", COLUMNS, left_out)
        _write_groups(folder / "groups.csv", assigned)
        _write_most_alike(folder / "most_alike.json", assigned, looks)
        looks.path.unlink()
        shards = {
            split: write_shards(
                folder,
                split,
                rows,
                staged=pixels,
                photos=assigned.photos,
                digests=staged.digests,
                max_bytes=params.shard_size * _MIB,
            )
            for split, rows in assigned.rows_of.items()
        }
        mean, std = mean_and_std(pixels.blocks(assigned.rows_of["train"]))
        pixels.path.unlink()
        classes = sorted(counts["train"])
        write_json(
            folder / "dataset.json",
            {
                "format": FORMAT,
                "classes": classes,
                "image_size": params.image_size,
                "resize": params.resize,
                "mean": mean,
                "std": std,
                "counts": {
                    split: {label: counts[split][label].photos for label in classes}
                    for split in SPLITS
                },
                "shards": shards,
            },
        )
    warnings = [*archives.warnings, *layout.warnings, *assigned.warnings]
    return Prepared(classes, counts, totals, left_out, warnings)


def _check_unreadable(
    path: str, layout: Layout, failures: dict[int, Failure], allowed: float
) -> None:
    broken = [row for row in sorted(failures) if failures[row].reason == UNREADABLE]
    if len(broken) <= allowed * len(layout.photos):
        return
    names = "\n".join(
        f"  {layout.photos[row].member.source}: {failures[row].detail}" for row in broken[:_SHOWN]
    )
    more = f"\n  and {len(broken) - _SHOWN:,} more" if len(broken) > _SHOWN else ""
    raise ArchiveError(
        f"{path}: {len(broken):,} of {len(layout.photos):,} photos are unreadable "
        f"({len(broken) / len(layout.photos):.1%}); allowed: data.max_unreadable {allowed}\n"
        f"{names}{more}"
    )


def _left_out(layout: Layout, assigned: Assigned) -> list[LeftOut]:
    """Return every file without a split, with its own class, sorted."""
    found = list(layout.left_out)
    for row, (reason, detail, other) in assigned.reasons.items():
        photo = layout.photos[row]
        item = LeftOut(photo.member.source, photo.label, reason, detail)
        if other is not None:
            like = layout.photos[other]
            item = item._replace(other_file=like.member.source, other_label=like.label)
        found.append(item)
    return sorted(found)


def _counts(assigned: Assigned) -> tuple[dict[str, dict[str, Counts]], dict[str, Counts]]:
    """Count photos, groups and near-copies of each class and split, and of each split."""
    group_of = {row: k for k, group in enumerate(assigned.groups) for row in group.rows}
    photos, near_copies = assigned.photos, assigned.near_copies
    classes = sorted({photos[row].label for row in assigned.rows_of["train"]})
    counts, totals = {}, {}
    for split, rows in assigned.rows_of.items():
        number = Counter(photos[row].label for row in rows)
        alike = Counter(photos[row].label for row in rows if row in near_copies)
        parts = {(photos[row].label, group_of.get(row, -1 - row)) for row in rows}
        groups = Counter(label for label, _ in parts)
        counts[split] = {
            label: Counts(number[label], groups[label], alike[label]) for label in classes
        }
        # A group of several classes counts once.
        totals[split] = Counts(len(rows), len({group for _, group in parts}), alike.total())
    return counts, totals


def _write_groups(path: Path, assigned: Assigned) -> None:
    """Write a line for each photo of a group of two or more, sorted by group."""
    split_of = {row: split for split, rows in assigned.rows_of.items() for row in rows}
    near_copies = assigned.near_copies
    lines = (
        (group.name, split_of[row], photo.label, photo.member.source, int(row in near_copies))
        for group in sorted(assigned.groups, key=lambda group: (group.name, group.key))
        for row, photo in ((row, assigned.photos[row]) for row in group.rows)
    )
    write_csv(path, ["group", "split", "class", "file", "near_copy"], lines)


def _write_most_alike(path: Path, assigned: Assigned, looks: Looks) -> None:
    """Write the most alike pair of a training and a test photo; null if all look different."""
    pair = most_alike(looks, assigned.rows_of["train"], assigned.rows_of["test"])
    found = None
    if pair is not None:
        *rows, correlation = pair
        sources = [assigned.photos[row].member.source for row in rows]
        found = {"train": sources[0], "test": sources[1], "correlation": correlation}
    write_json(path, found)
