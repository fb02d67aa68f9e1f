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
from fieldguide.prepare.chunks import Failure
from fieldguide.prepare.layout import Layout, read_layout
from fieldguide.prepare.left_out import DUPLICATE, NOT_A_PHOTO, UNREADABLE, LeftOut
from fieldguide.prepare.shards import write_shards
from fieldguide.prepare.splits import find_copies, stratified_split
from fieldguide.prepare.staging import Staged, mean_and_std, stage_photos

_SHOWN = 10  # names listed in a message
_MIB = 2**20


class Prepared(NamedTuple):
    """Counts of a store that was written."""

    classes: list[str]
    counts: dict[str, dict[str, int]]  # split -> class -> photos
    left_out: list[LeftOut]
    warnings: list[str]  # about the archives


def prepare(params: DataParams, target: Path) -> Prepared:
    """Write the prepared store; if it fails, nothing is left at `target`.

    All cores decode photos straight out of the archives into one file beside the store. Once the
    SHA-256 of every photo is known, and which photos are broken, rows are copied to their shards.
    Memory holds names and hashes of all photos, but pixels of only a few.

    Raises:
        ArchiveError: see `open_archives`, `read_layout` and `stratified_split`; also if more than
            `data.max_unreadable` of the photos are unreadable.
    """
    with open_archives(params.archive) as archives, new_folder(target) as folder:
        layout = read_layout(archives.shown, archives.members)
        staged = Staged(folder / "staged", params.image_size)
        members = [photo.member for photo in layout.photos]
        digests, failures = stage_photos(archives, members, params, staged.path)
        _check_unreadable(archives.shown, layout, failures, params.max_unreadable)
        rows_of, left_out = _assign(layout, digests, failures, params)
        write_csv(folder / "left_out.csv", ["file", "class", "reason", "detail"], left_out)
        counts = {}
        for split, rows in rows_of.items():
            photos_of = Counter(layout.photos[row].label for row in rows)
            counts[split] = {label: photos_of[label] for label in layout.classes}
        shards = {
            split: write_shards(
                folder,
                split,
                rows,
                staged=staged,
                photos=layout.photos,
                digests=digests,
                max_bytes=params.shard_size * _MIB,
            )
            for split, rows in rows_of.items()
        }
        mean, std = mean_and_std(staged.blocks(rows_of["train"]))
        staged.path.unlink()
        write_json(
            folder / "dataset.json",
            {
                "format": FORMAT,
                "classes": layout.classes,
                "image_size": params.image_size,
                "resize": params.resize,
                "mean": mean,
                "std": std,
                "counts": counts,
                "shards": shards,
            },
        )
    return Prepared(layout.classes, counts, left_out, archives.warnings)


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


def _assign(
    layout: Layout, digests: list[bytes], failures: dict[int, Failure], params: DataParams
) -> tuple[dict[str, list[int]], list[LeftOut]]:
    """Return the rows of each split, sorted, and the photos that are left out."""
    photos = layout.photos
    copies = find_copies(
        digests, [photo.label for photo in photos], [photo.split for photo in photos]
    )
    reasons = failures | {row: Failure(DUPLICATE, why) for row, why in copies.items()}
    left_out = [
        *(LeftOut(photos[row].member.source, photos[row].label, *reasons[row]) for row in reasons),
        *layout.left_out,
    ]
    left_out.sort()
    rows_of: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row, photo in enumerate(photos):
        if row not in reasons:
            rows_of[photo.split].append(row)
    emptied = set(layout.classes) - {photos[row].label for row in rows_of["train"]}
    if emptied:
        label = min(emptied)
        of_class = [item for item in left_out if item.label == label]
        raise ArchiveError(_nothing_left(f"class {label!r} of the training", of_class))
    for split, fraction in (("test", params.test_fraction), ("val", params.val_fraction)):
        if any(photo.split == split for photo in photos):
            if not rows_of[split]:
                raise ArchiveError(_nothing_left(split, left_out))
            continue
        train = rows_of["train"]
        stay, held_out = stratified_split(
            [photos[row].label for row in train],
            [digests[row] for row in train],
            fraction,
            seed=params.seed,
            key=f"data.{split}_fraction",
        )
        rows_of["train"] = [train[k] for k in stay]
        rows_of[split] = [train[k] for k in held_out]
    return rows_of, left_out


def _nothing_left(where: str, left_out: list[LeftOut]) -> str:
    photos = [item for item in left_out if item.reason != NOT_A_PHOTO]
    counts = Counter(item.reason for item in photos)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
    return (
        f"no usable photo left in the {where} folder; left out: {reasons}, such as "
        f"{photos[0].file} ({photos[0].detail}); see data.min_size and data.max_unreadable"
    )
