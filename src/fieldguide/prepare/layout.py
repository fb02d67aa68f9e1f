"""Read the class and the split of each photo from its path."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.archive import Member

PHOTO_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_SPLIT_OF = {"train": "train", "training": "train"}  # by name of the folder
_SPLIT_OF |= {"val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
# train_images, seg-test, Validation: most likely a split, not a class.
_SPLIT_LIKE = re.compile(rf"(?<![a-z])({'|'.join(_SPLIT_OF)})(?![a-z])", re.IGNORECASE)
Folders = tuple[str, ...]  # names of the folders that a path goes through


class Photo(NamedTuple):
    """A member whose name ends like a photo's, with its split and class."""

    member: Member
    split: str  # "train", "val" or "test"
    label: str  # class name


class Layout(NamedTuple):
    """What the paths in an archive say; photos are sorted by name."""

    photos: list[Photo]
    classes: list[str]  # sorted
    misplaced: list[str]  # photos outside every class folder
    other_files: int  # neither photos nor hidden files


def read_layout(path: str, members: Sequence[Member]) -> Layout:
    """Find the photos of `[top/]train/<class>/`, `[top/]val/` or `test/`, or `[top/]<class>/`.

    `val/` beside `train/` is the test set, as in nature_12K, unless there is a `test/` as well.

    Args:
        path: the archive's name in messages.
        members: its files.

    Raises:
        ArchiveError: there is no photo, there are fewer than two classes, only the test set has
            some class, or at least half of the photos are outside the class folders.
    """
    photo_files, other_files = _photo_files(members)
    if not photo_files:
        raise ArchiveError(
            f"{path}: no photo found among {len(members):,} files; "
            f"allowed: {' '.join(PHOTO_SUFFIXES)}"
        )
    # By name before archive, so that the same one of several copies is first in any archive.
    photo_files.sort(key=lambda pair: (pair[0].name, pair[0].archive, pair[0].place))
    shared = _shared_folders({folders for _, folders in photo_files})
    split_of = _split_folders(path, {folders[shared:] for _, folders in photo_files})
    photos, misplaced = [], []
    for member, folders in photo_files:
        place = _place(folders[shared:], split_of)
        if place is None:
            misplaced.append(member.source)
        else:
            photos.append(Photo(member, *place))
    if photos and len(misplaced) >= len(photos):
        raise ArchiveError(
            f"{path}: {len(misplaced):,} of {len(photo_files):,} photos, such as {misplaced[0]}, "
            "are outside the class folders; allowed: fewer than half"
        )
    return Layout(photos, _classes(path, photos, misplaced), misplaced, other_files)


def _photo_files(members: Sequence[Member]) -> tuple[list[tuple[Member, Folders]], int]:
    """Return each photo with its folders, and the number of other files; skip hidden files."""
    photos = []
    other_files = 0
    folders_of = cache(_folders)  # many photos share one tuple, which saves memory
    for member in members:
        folder, _, file = member.name.rpartition("/")
        folders = folders_of(folder)
        if any(map(_is_hidden, folders)) or _is_hidden(file):
            continue
        if file.lower().endswith(PHOTO_SUFFIXES):
            photos.append((member, folders))
        else:
            other_files += 1
    return photos, other_files


def _folders(folder: str) -> Folders:
    """Split a path; archives made on macOS decompose accented letters, so these are composed."""
    names = (name for name in folder.split("/") if name not in ("", "."))
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def _is_hidden(name: str) -> bool:
    """Tell whether it is like .DS_Store, ._photo.jpg, .git, or macOS's folder __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def _shared_folders(every: Collection[Folders]) -> int:
    """Count the leading folders that all photos share.

    The last folder of a path is the class and is never shared.
    """
    first, last = min(every), max(every)  # all other paths share what these two share
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return max(0, min(shared, max(map(len, every)) - 1))


def _split_folders(path: str, every: Collection[Folders]) -> dict[str, str]:
    """Return the split by its folder's name; nothing if the first folders are classes."""
    # train/<class>/photo. A class that is called train holds photos, not folders.
    splits = {_SPLIT_OF.get(folders[0].lower()) for folders in every if len(folders) > 1}
    if "train" not in splits:
        _refuse_splits_as_classes(path, every)
        return {}
    if "test" not in splits:
        return {name: "test" if split == "val" else split for name, split in _SPLIT_OF.items()}
    return _SPLIT_OF


def _place(folders: Folders, split_of: dict[str, str]) -> tuple[str, str] | None:
    """Return split and class of the photos in a folder; None if they have none."""
    if not split_of:
        return ("train", folders[0]) if folders else None
    split = split_of.get(folders[0].lower()) if len(folders) > 1 else None
    return (split, folders[1]) if split else None


def _refuse_splits_as_classes(path: str, every: Collection[Folders]) -> None:
    """Refuse splits in place of classes: seg_train/ and seg_test/, or train/ below other folders.

    A classifier that tells training photos from test photos would look like a good one.
    """
    suspects = {
        "/".join(folders[: k + 1])
        for folders in every
        for k, name in enumerate(folders[:-1])  # a class folder below it
        if name.lower() in _SPLIT_OF
    }
    first = {folders[0] for folders in every if folders}
    if first and all(_SPLIT_LIKE.search(name) for name in first):
        suspects |= first
    if suspects:
        raise ArchiveError(
            f"{path}: {', '.join(sorted(suspects)[:4])} look like splits, not classes; allowed: "
            "train/<class>/ and beside it val/<class>/ or test/<class>/, or only <class>/"
        )


def _classes(path: str, photos: Sequence[Photo], misplaced: Sequence[str]) -> list[str]:
    """Return the sorted class names of the training folder."""
    classes = sorted({photo.label for photo in photos if photo.split == "train"})
    unknown = Counter(photo.label for photo in photos if photo.label not in classes)
    if unknown:
        name, count = unknown.most_common(1)[0]
        raise ArchiveError(
            f"{path}: class {name!r} has {count} photos outside the training folder and none in it;"
            f" allowed: {', '.join(classes) or 'none found'}"
        )
    if len(classes) < 2:  # noqa: PLR2004
        stray = f" ({misplaced[0]} is in none)" if misplaced else ""
        raise ArchiveError(
            f"{path}: found {len(classes)} class folders {classes}{stray}; allowed: two or more, "
            "as train/<class>/ or <class>/"
        )
    return classes
