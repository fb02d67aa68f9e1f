"""Read the class and the split of each photo from its path."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.output import counted, listed
from fieldguide.prepare.left_out import MISPLACED, NOT_A_PHOTO, LeftOut
from fieldguide.prepare.member import Member
from fieldguide.prepare.names import (
    NEVER_PHOTOS,
    PHOTO_SUFFIXES,
    by_suffix,
    has_photo_suffix,
    shown_suffix,
)

SPLIT_OF = {"train": "train", "training": "train"}  # by name of the folder
SPLIT_OF |= {"val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
# train_images, seg-test, Validation: most likely a split, not a class.
_SPLIT_LIKE = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_OF)})(?![a-z])", re.IGNORECASE)
Folders = tuple[str, ...]  # names of the folders that a path goes through
Place = tuple[str, str]  # split and class


class Photo(NamedTuple):
    """A member whose name ends like a photo's, with its split and class."""

    member: Member
    split: str  # "train", "val" or "test"
    label: str  # class name
    group: tuple[str, ...] = ()  # values of the group columns of a label table


class Layout(NamedTuple):
    """What the paths in an archive, or a label table, say."""

    photos: list[Photo]  # sorted by name
    classes: list[str]  # sorted
    # Photos without a class, files that are not photos, and rows of a table without a file.
    left_out: list[LeftOut]
    warnings: list[str]


class Found(NamedTuple):
    """A file, and what its name says."""

    member: Member
    folders: Folders
    is_photo: bool  # by its suffix
    may_be_photo: bool  # also in a format that is not read


def read_layout(path: str, members: Sequence[Member]) -> Layout:
    """Find the photos of `[top/]train/<class>/`, `[top/]val/` or `test/`, or `[top/]<class>/`.

    `val/` beside `train/` is the test set, as in nature_12K, unless there is a `test/` as well.

    Args:
        path: the archive's name in messages.
        members: its files.

    Raises:
        ArchiveError: there is no photo, there are fewer than two classes, only the test set has
            some class, a class folder holds files but no photo, or at least half of the photos are
            outside the class folders.
    """
    found = files_by_name(members)
    check_photos(path, found)
    every = {one.folders for one in found if one.may_be_photo}
    top = top_folder(every)
    split_of = _split_folders(path, {folders[len(top) :] for folders in every})
    photos, left_out = [], []
    strange: dict[Place, list[Member]] = defaultdict(list)  # files in class folders
    for member, folders, is_photo, may_be_photo in found:
        place = _place(folders[len(top) :], split_of) if folders[: len(top)] == top else None
        label = place[1] if place else ""
        if is_photo and place:
            photos.append(Photo(member, *place))
        elif is_photo:
            left_out.append(LeftOut(member.source, "", MISPLACED, "outside the class folders"))
        else:
            detail = shown_suffix(member.name)
            left_out.append(LeftOut(member.source, label, NOT_A_PHOTO, detail))
            if place and may_be_photo:
                strange[place].append(member)
    misplaced = [one.file for one in left_out if one.reason == MISPLACED]
    if photos and len(misplaced) >= len(photos):
        raise ArchiveError(
            f"{path}: {len(misplaced):,} of {len(misplaced) + len(photos):,} photos, such as "
            f"{misplaced[0]}, are outside the class folders; allowed: fewer than half"
        )
    _check_no_class_vanishes(path, photos, strange)
    return Layout(photos, checked_classes(path, photos, misplaced), left_out, [])


def files_by_name(members: Sequence[Member]) -> list[Found]:
    """Return the files by name before archive: the first of several copies is always the same."""
    folders_of = cache(_folders)  # many photos share one tuple, which saves memory
    found = []
    for member in members:
        folder, _, file = member.name.rpartition("/")
        is_other = file.lower().endswith(NEVER_PHOTOS)
        found.append(Found(member, folders_of(folder), has_photo_suffix(file), not is_other))
    found.sort(key=lambda one: (one.member.name, one.member.archive, one.member.place))
    return found


def _folders(folder: str) -> Folders:
    """Split a path; archives made on macOS decompose accented letters, so these are composed."""
    names = (name for name in folder.split("/") if name not in ("", "."))
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def check_photos(path: str, found: Sequence[Found]) -> None:
    """Refuse an archive without a photo."""
    if not any(one.is_photo for one in found):
        raise ArchiveError(
            f"{path}: no photo found among {counted(len(found), 'file')}"
            f"{_in_brackets([one.member for one in found])}; allowed: {' '.join(PHOTO_SUFFIXES)}"
        )


def _in_brackets(members: Sequence[Member]) -> str:
    return f" ({by_suffix(member.name for member in members)})" if members else ""


def top_folder(every: Collection[Folders]) -> Folders:
    """Return the folders above the splits or classes: each holds one folder, which holds others.

    Photos beside a folder do not matter.
    """
    top: Folders = ()
    while True:
        below = {folders[: len(top) + 2] for folders in every if folders[: len(top)] == top}
        first = {folders[: len(top) + 1] for folders in below if len(folders) > len(top)}
        if len(first) != 1 or max(map(len, below)) < len(top) + 2:
            return top
        (top,) = first


def _split_folders(path: str, every: Collection[Folders]) -> dict[str, str]:
    """Return the split by its folder's name; nothing if the first folders are classes."""
    # train/<class>/photo. A class that is called train holds photos, not folders.
    split_of = split_by_folder(folders[0] for folders in every if len(folders) > 1)
    if not split_of:
        _refuse_splits_as_classes(path, every)
    return split_of


def split_by_folder(names: Iterable[str]) -> dict[str, str]:
    """Return the split of photos in each folder, in lower case; nothing if no folder is train."""
    splits = {SPLIT_OF.get(name.lower()) for name in names}
    if "train" not in splits:
        return {}
    if "test" not in splits:
        return {name: "test" if split == "val" else split for name, split in SPLIT_OF.items()}
    return SPLIT_OF


def _place(folders: Folders, split_of: dict[str, str]) -> Place | None:
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
        if name.lower() in SPLIT_OF
    }
    first = {folders[0] for folders in every if folders}
    if first and all(_SPLIT_LIKE.search(name) for name in first):
        suspects |= first
    if suspects:
        raise ArchiveError(
            f"{path}: {', '.join(sorted(suspects)[:4])} look like splits, not classes; allowed: "
            "train/<class>/ and beside it val/<class>/ or test/<class>/, or only <class>/"
        )


def _check_no_class_vanishes(
    path: str, photos: Sequence[Photo], strange: dict[Place, list[Member]]
) -> None:
    """Refuse a class folder of which no file is read: its class would be missing in silence."""
    places = {(photo.split, photo.label) for photo in photos}
    vanished = sorted(strange.keys() - places)
    if not vanished:
        return
    lines = "\n".join(
        f"  {label} ({split}): {counted(len(strange[split, label]), 'file')}"
        f"{_in_brackets(strange[split, label])}, such as {strange[split, label][0].source}"
        for split, label in vanished[:10]
    )
    raise ArchiveError(
        f"{path}: {counted(len(vanished), 'class folder')} without a photo that can be read; "
        f"allowed: {' '.join(PHOTO_SUFFIXES)}; convert the files, or give them the suffix of their "
        f"format, or take the folder out if it is no class\n{lines}"
    )


def checked_classes(path: str, photos: Sequence[Photo], misplaced: Sequence[str]) -> list[str]:
    """Return the sorted class names of the training photos.

    Raises:
        ArchiveError: there are fewer than two, other splits have another one, or two differ in
            upper and lower case or in spaces only.
    """
    classes = sorted({photo.label for photo in photos if photo.split == "train"})
    unknown = Counter(photo.label for photo in photos if photo.label not in classes)
    if unknown:
        name, count = unknown.most_common(1)[0]
        raise ArchiveError(
            f"{path}: class {name!r} has {counted(count, 'photo')} for validation or test and none "
            f"for training; allowed: {listed(classes) or 'none found'}"
        )
    _check_spelling(path, classes)
    if len(classes) < 2:  # noqa: PLR2004
        stray = f" ({misplaced[0]} is in none)" if misplaced else ""
        plural = "" if classes else "es"
        raise ArchiveError(
            f"{path}: found {len(classes)} class{plural} {classes}{stray}; allowed: two or more, "
            "as folders train/<class>/ or <class>/, or in a table (data.labels)"
        )
    return classes


def spelling_key(label: str) -> str:
    """Return what is equal for names that differ only in upper and lower case or in spaces."""
    return "".join(label.casefold().split())


def _check_spelling(path: str, classes: Sequence[str]) -> None:
    """Refuse classes that differ only in upper and lower case or in spaces: Cat and cat."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_key[spelling_key(name)].append(name)
    for names in by_key.values():
        if len(names) > 1:
            shown = " and ".join(repr(name) for name in names)
            raise ArchiveError(
                f"{path}: classes {shown} differ only in upper and lower case or spaces; allowed: "
                "one spelling of each class"
            )
