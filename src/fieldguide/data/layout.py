"""Which class and which part of the data set a photo belongs to, by its path alone."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fieldguide.data.archive import Member
from fieldguide.errors import ArchiveError

PHOTO_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val"}
_FOLDERS |= {"validation": "val", "test": "test", "testing": "test"}

# train_images, seg-test, Validation: most likely a split, not a class.
_SPLIT_LIKE = re.compile(
    r"(?<![a-z])(train|training|test|testing|val|valid|validation)(?![a-z])", re.IGNORECASE
)


class Photo(NamedTuple):
    """A member that should be a picture."""

    member: Member
    part: str  # "train", "val" or "test"
    label: str  # class name


class Layout(NamedTuple):
    """What the archive's paths say; photos are sorted by name."""

    photos: list[Photo]
    classes: list[str]  # sorted
    misplaced: list[str]  # pictures outside every class folder
    other_files: int  # neither pictures nor hidden files


def read_layout(path: Path, members: Sequence[Member]) -> Layout:
    """Find the photos of `[top/]train/<class>/`, `[top/]val/` or `test/`, or `[top/]<class>/`.

    `val/` beside `train/` is the test set, as in nature_12K, unless there is a `test/` as well.

    Raises:
        ArchiveError: no picture, fewer than two classes, a class that only the test set has, or
            half of the pictures in no class folder that is read.
    """
    visible = [member for member in members if not _is_hidden(member.name)]
    pictures = [m for m in visible if PurePosixPath(m.name).suffix.lower() in PHOTO_SUFFIXES]
    if not pictures:
        raise ArchiveError(
            f"{path}: no picture found among {len(members):,} files; "
            f"allowed: {' '.join(sorted(PHOTO_SUFFIXES))}"
        )
    pictures.sort(key=lambda member: (member.name, member.place))
    top = _shared_folders(pictures)
    # train/<class>/photo: a class that is called train has photos, not folders.
    folders = {names[0].lower() for member in pictures if len(names := _parts(member, top)) > 2}  # noqa: PLR2004
    split_by_folder = "train" in {_FOLDERS.get(name) for name in folders}
    if not split_by_folder:
        _refuse_hidden_splits(path, [_parts(member, top) for member in pictures])
    part_of = _FOLDERS
    if not any(_FOLDERS.get(name) == "test" for name in folders):
        part_of = {name: "test" if part == "val" else part for name, part in _FOLDERS.items()}

    photos, misplaced = [], []
    for member in pictures:
        names = _parts(member, top)
        part: str | None = "train"
        if split_by_folder:
            part, names = part_of.get(names[0].lower()), names[1:]
        if part is None or len(names) < 2:  # noqa: PLR2004 - a class folder and a file
            misplaced.append(member.name)
        else:
            photos.append(Photo(member, part, sys.intern(names[0])))
    if photos and len(misplaced) >= len(photos):
        raise ArchiveError(
            f"{path}: {len(misplaced):,} of {len(pictures):,} photos, as {misplaced[0]}, lie "
            "outside the class folders that are read; allowed: fewer than half"
        )
    classes = _classes(path, photos, misplaced)
    return Layout(photos, classes, misplaced, len(visible) - len(pictures))


def _classes(path: Path, photos: Sequence[Photo], misplaced: Sequence[str]) -> list[str]:
    classes = sorted({photo.label for photo in photos if photo.part == "train"})
    unknown = Counter(photo.label for photo in photos if photo.label not in classes)
    if unknown:
        name, count = unknown.most_common(1)[0]
        raise ArchiveError(
            f"{path}: class {name!r} has {count} photos outside the training folder and none in it;"
            f" allowed: {', '.join(classes) or 'none found'}"
        )
    if len(classes) < 2:  # noqa: PLR2004
        stray = f" ({misplaced[0]} lies in none)" if misplaced else ""
        raise ArchiveError(
            f"{path}: found {len(classes)} class folders {classes}{stray}; allowed: two or more, "
            "as train/<class>/ or <class>/"
        )
    return classes


def _refuse_hidden_splits(path: Path, every: Sequence[tuple[str, ...]]) -> None:
    """Stop where classes would be splits: seg_train/ and seg_test/, or train/ below other folders.

    A classifier that tells training from test photos would look like a good one.
    """
    deeper = {
        "/".join(names[: k + 1])
        for names in every
        for k, name in enumerate(names[:-2])  # a class folder and a file below it
        if name.lower() in _FOLDERS
    }
    first = {names[0] for names in every if len(names) > 1}
    if first and all(_SPLIT_LIKE.search(name) for name in first):
        deeper |= first
    if deeper:
        raise ArchiveError(
            f"{path}: {', '.join(sorted(deeper)[:4])} look like splits, not classes; allowed: "
            "train/<class>/ and beside it val/<class>/ or test/<class>/, or only <class>/"
        )


def _is_hidden(name: str) -> bool:
    """.DS_Store, ._photo.jpg, .git/, and the folder __MACOSX that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _parts(member: Member, top: int) -> tuple[str, ...]:
    """Folders below the first `top` ones, and the file's name.

    Accented letters get one spelling: archives made on macOS decompose them.
    """
    return PurePosixPath(unicodedata.normalize("NFC", member.name)).parts[top:]


def _shared_folders(pictures: Sequence[Member]) -> int:
    """How many leading folders all pictures share, leaving a class folder to the deepest."""
    shared = _parts(pictures[0], 0)[:-1]
    depth = 0
    for member in pictures:
        names = _parts(member, 0)
        depth = max(depth, len(names))
        while names[:-1][: len(shared)] != shared:
            shared = shared[:-1]
    return max(0, min(len(shared), depth - 2))
