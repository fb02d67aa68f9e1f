"""From archives to the prepared store: read, decode, find copies, split, write."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.files import new_folder, write_json
from fieldguide.core.params import DataParams
from fieldguide.core.store import FORMAT, SPLITS
from fieldguide.prepare.archives import open_archives
from fieldguide.prepare.chunks import Failure
from fieldguide.prepare.layout import Layout, read_layout
from fieldguide.prepare.shards import write_shards
from fieldguide.prepare.splits import find_copies, stratified_split
from fieldguide.prepare.staging import Staged, stage_photos

_SHOWN = 10  # names listed in a message
_MIB = 2**20


class LeftOut(NamedTuple):
    """A photo that is in no split."""

    source: str
    reason: str  # "unreadable", "too small", "too large", "duplicate" or "misplaced"
    detail: str


class Prepared(NamedTuple):
    """What `prepare` made, for its report."""

    classes: list[str]
    counts: dict[str, dict[str, int]]  # split -> class -> photos
    left_out: list[LeftOut]
    other_files: int


def prepare(params: DataParams, target: Path) -> Prepared:
    """Write the prepared store; nothing is left at `target` if it fails.

    Photos are decoded by all workers, straight out of the archives, into a file beside the store;
    once every photo's SHA-256 is known and the broken ones are known, rows are copied to their
    shards. Memory holds names and hashes of all photos, but pixels of a few only.

    Raises:
        ArchiveError: see `open_archives`, `read_layout` and `stratified_split`; also when more than
            `data.max_unreadable` of the photos are unreadable, or the disk is too small.
    """
    with open_archives(params.archive) as archive, new_folder(target) as folder:
        path = archive.shown
        layout = read_layout(path, archive.members)
        _check_space(folder, len(layout.photos) * params.image_size**2 * 3)
        members = [photo.member for photo in layout.photos]
        digests, failures = stage_photos(archive, members, params, folder / "staged")
        _check_unreadable(path, layout, failures, params.max_unreadable)
        rows_of, left_out = _assign(layout, digests, failures, params)
        staged = Staged(folder / "staged", params.image_size)
        counts, shards, moments = {}, {}, {}
        for name, rows in rows_of.items():
            found = Counter(layout.photos[row].label for row in rows)
            counts[name] = {label: found[label] for label in layout.classes}
            shards[name], moments[name] = write_shards(
                *(folder, name, staged, rows),
                photos=layout.photos,
                digests=digests,
                size=params.shard_size * _MIB,
            )
        (folder / "staged").unlink()
        mean, std = moments["train"].mean_and_std()
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
                "left_out": [item._asdict() for item in left_out],
            },
        )
    return Prepared(layout.classes, counts, left_out, layout.other_files)


def _check_space(folder: Path, staged_bytes: int) -> None:
    free, needed = shutil.disk_usage(folder).free, 2 * staged_bytes
    if needed > free:
        raise ArchiveError(
            f"{folder.parent}: {needed / 2**20:,.0f} MiB needed for the prepared store, "
            f"{free / 2**20:,.0f} MiB free; lower data.image_size or free some space"
        )


def _check_unreadable(
    path: str, layout: Layout, failures: dict[int, Failure], allowed: float
) -> None:
    broken = [row for row in sorted(failures) if failures[row].reason == "unreadable"]
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
    """Rows of each split, sorted, and what is left out."""
    photos = layout.photos
    usable = [row for row in range(len(photos)) if row not in failures]
    copies = find_copies(
        [digests[row] for row in usable],
        [photos[row].label for row in usable],
        [photos[row].part for row in usable],
    )
    left_out = [
        LeftOut(name, "misplaced", "outside the class folders that are read")
        for name in layout.misplaced
    ]
    left_out += [LeftOut(photos[row].member.source, *failures[row]) for row in sorted(failures)]
    left_out += [
        LeftOut(photos[usable[k]].member.source, "duplicate", why) for k, why in copies.items()
    ]
    usable = [row for k, row in enumerate(usable) if k not in copies]
    rows_of: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row in usable:
        rows_of[photos[row].part].append(row)
    for label in sorted(set(layout.classes) - {photos[row].label for row in rows_of["train"]}):
        raise ArchiveError(_nothing_left(f"class {label!r} of the training", left_out))

    def split_off(name: str, fraction: float) -> None:
        if any(photo.part == name for photo in photos):
            if not rows_of[name]:
                raise ArchiveError(_nothing_left(name, left_out))
        else:
            rows = rows_of["train"]
            labels = [photos[row].label for row in rows]
            stay, held_out = stratified_split(
                *(labels, [digests[row] for row in rows], fraction),
                seed=params.seed,
                key=f"data.{name}_fraction",
            )
            rows_of["train"] = [rows[k] for k in stay]
            rows_of[name] = [rows[k] for k in held_out]

    split_off("test", params.test_fraction)
    split_off("val", params.val_fraction)
    return rows_of, left_out


def _nothing_left(where: str, left_out: list[LeftOut]) -> str:
    counts = Counter(item.reason for item in left_out)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
    return (
        f"no usable photo left in the {where} folder; left out of the whole archive: {reasons}, "
        f"such as {left_out[0].source} ({left_out[0].detail}); see data.min_size and "
        "data.max_unreadable"
    )
