"""Which class and which part of the data set a photo belongs to, by its path alone."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.archive import Member

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


def read_layout(path: Path | str, members: Sequence[Member]) -> Layout:
    """Find the photos of `[top/]train/<class>/`, `[top/]val/` or `test/`, or `[top/]<class>/`.

    `val/` beside `train/` is the test set, as in nature_12K, unless there is a `test/` as well.

    Raises:
        ArchiveError: no picture, fewer than two classes, a class that only the test set has, or
            half of the pictures in no class folder that is read.
    """
    pictures, other_files = _pictures(members)
    if not pictures:
        raise ArchiveError(
            f"{path}: no picture found among {len(members):,} files; "
            f"allowed: {' '.join(sorted(PHOTO_SUFFIXES))}"
        )
    # By name, which is then the first of several copies whatever archive they are in.
    pictures.sort(key=lambda picture: (picture[0].name, picture[0].archive, picture[0].place))
    distinct = {folders for _, folders in pictures}
    top = _shared_folders(distinct)
    below = {folders: folders[top:] for folders in distinct}
    # train/<class>/photo: a class that is called train has photos, not folders.
    splits = {names[0].lower() for names in below.values() if len(names) > 1}
    split_by_folder = "train" in {_FOLDERS.get(name) for name in splits}
    if not split_by_folder:
        _refuse_hidden_splits(path, below.values())
    part_of = _FOLDERS
    if not any(_FOLDERS.get(name) == "test" for name in splits):
        part_of = {name: "test" if part == "val" else part for name, part in _FOLDERS.items()}
    place_of = {
        folders: _place(names, part_of if split_by_folder else None)
        for folders, names in below.items()
    }

    photos, misplaced = [], []
    for member, folders in pictures:
        place = place_of[folders]
        if place is None:
            misplaced.append(member.source)
        else:
            photos.append(Photo(member, *place))
    if photos and len(misplaced) >= len(photos):
        raise ArchiveError(
            f"{path}: {len(misplaced):,} of {len(pictures):,} photos, as {misplaced[0]}, lie "
            "outside the class folders that are read; allowed: fewer than half"
        )
    classes = _classes(path, photos, misplaced)
    return Layout(photos, classes, misplaced, other_files)


def _place(names: tuple[str, ...], part_of: Mapping[str, str] | None) -> tuple[str, str] | None:
    """Part and class of the photos in a folder; None where they have none.

    Args:
        names: of the folders below those that all photos share.
        part_of: part by the first folder's name; None where classes come first.
    """
    part: str | None = "train"
    if part_of is not None and names:
        part, names = part_of.get(names[0].lower()), names[1:]
    return (part, names[0]) if part is not None and names else None


def _classes(path: Path | str, photos: Sequence[Photo], misplaced: Sequence[str]) -> list[str]:
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


def _refuse_hidden_splits(path: Path | str, every: Collection[tuple[str, ...]]) -> None:
    """Stop where classes would be splits: seg_train/ and seg_test/, or train/ below other folders.

    A classifier that tells training from test photos would look like a good one.
    """
    deeper = {
        "/".join(folders[: k + 1])
        for folders in every
        for k, name in enumerate(folders[:-1])  # a class folder below it
        if name.lower() in _FOLDERS
    }
    first = {folders[0] for folders in every if folders}
    if first and all(_SPLIT_LIKE.search(name) for name in first):
        deeper |= first
    if deeper:
        raise ArchiveError(
            f"{path}: {', '.join(sorted(deeper)[:4])} look like splits, not classes; allowed: "
            "train/<class>/ and beside it val/<class>/ or test/<class>/, or only <class>/"
        )


def _pictures(members: Sequence[Member]) -> tuple[list[tuple[Member, tuple[str, ...]]], int]:
    """Each picture with its folders, and how many other files there are; without hidden ones.

    What a folder's name says is looked up once a folder: photos are many, folders few.
    """
    pictures = []
    other_files = 0
    known: dict[str, tuple[str, ...] | None] = {}
    for member in members:
        folder, _, file = member.name.rpartition("/")
        if file in ("", "."):  # a/b/ and a/b/. are the file b of a
            *names, file = _split(member.name) or [""]
            folder = "/".join(names)
        if folder not in known:
            known[folder] = _folders(folder)
        folders = known[folder]
        if folders is None or _is_hidden(file):
            continue
        stem, dot, suffix = file.rpartition(".")
        if stem and dot + suffix.lower() in PHOTO_SUFFIXES:
            pictures.append((member, folders))
        else:
            other_files += 1
    return pictures, other_files


def _folders(folder: str) -> tuple[str, ...] | None:
    """Names of the folders that a path goes through; None for a hidden one.

    Accented letters get one spelling: archives made on macOS decompose them.
    """
    names = _split(folder)
    if any(_is_hidden(name) for name in names):
        return None
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def _split(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _is_hidden(name: str) -> bool:
    """.DS_Store, ._photo.jpg, .git/, and the folder __MACOSX that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def _shared_folders(every: Collection[tuple[str, ...]]) -> int:
    """How many leading folders all pictures share, leaving a class folder to the deepest."""
    first, last = min(every), max(every)  # what these share, all between them share
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return max(0, min(shared, max(map(len, every)) - 1))
