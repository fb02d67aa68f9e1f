"""Lay classified photos into one folder per class, as hard links or copies."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import md5
from fieldguide.inference.answers import UNSURE, Row
from fieldguide.prepare.names import is_hidden

_MAX_BYTES = 200  # of a name that is not kept; file systems allow 255, and a number may follow
_MAX_SUFFIX = 40  # bytes, likewise
# Windows takes these names for devices, also with a suffix.
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)


def folder_names(classes: list[str]) -> dict[str, str]:
    """Return a name for the folder of each class that every file system allows.

    A class whose name is safe keeps it. In others `_` replaces what is not allowed, and long names
    are cut. Names that a disk may take for the same (upper and lower case, accents) get -2, -3, ...
    The name UNSURE is kept free.
    """
    taken, names = {_disk_name(UNSURE)}, {}
    for label in sorted(classes, key=lambda label: _safe(label) != label):  # safe ones first
        safe = _safe(label)
        numbered = (safe if k == 1 else f"{safe}-{k}" for k in count(1))
        names[label] = next(name for name in numbered if _disk_name(name) not in taken)
        taken.add(_disk_name(names[label]))
    return names


def _safe(label: str) -> str:
    name = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in label)
    name = _cut(name, _MAX_BYTES)
    name = re.sub(r"[. ]$", "_", name)  # Windows drops a last dot or space
    if is_hidden(name) or _DEVICE.fullmatch(name):
        name = f"_{name}_"
    return name or "_"


def _cut(name: str, size: int) -> str:
    """Cut a name to a number of bytes, but not within a character."""
    while len(os.fsencode(name)) > size:
        name = name[:-1]
    return name


def _disk_name(name: str) -> str:
    """Return what is equal for names that some disk takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class ClassFolders:
    """Folders for the photos of each class, and one for those with the answer UNSURE.

    A photo arrives under its own name. It is never moved, and no file is ever overwritten: if
    another photo has that name already, eight digits of the photo's MD5 are appended.
    """

    def __init__(self, folder: Path, classes: list[str], given: list[Path]) -> None:
        """Make the outer folder.

        Args:
            folder: for the class folders.
            classes: of the classifier.
            given: files and folders to classify.

        Raises:
            FieldguideError: the next run would find sorted photos among those to classify.
            OSError: the folder cannot be made.
        """
        self._folders = {label: folder / name for label, name in folder_names(classes).items()}
        self._folders.setdefault(UNSURE, folder / UNSURE)
        _refuse_given(folder, self._folders.values(), given)
        folder.mkdir(parents=True, exist_ok=True)
        # On the same file system as its final place, and apart from those of other processes.
        self._partial = folder / f".{os.getpid()}.partial"
        self.counts: Counter[str] = Counter()  # of "linked", "copied" and "already there"

    def sort(self, rows: Iterable[Row], photos: list[Path]) -> Iterator[Row]:
        """Lay each photo into the folder of its answer, then pass its row on.

        Args:
            rows: of `classify`, one for each photo.
            photos: files.

        Raises:
            FieldguideError: a photo cannot be linked or copied, for example on a full disk.
        """
        for row, photo in zip(rows, photos, strict=True):
            if "error" not in row:
                label = row.get("answer", row["classes"][0]["class"])
                target = self._folders[label] / photo.name
                try:
                    self.counts[self._add(photo.resolve(), target)] += 1
                except OSError as err:
                    raise FieldguideError(
                        f"--sort: {target}: cannot be linked or copied there "
                        f"({err.strerror or err})"
                    ) from err
            yield row

    def _add(self, photo: Path, target: Path) -> str:
        """Lay one photo under its name, or with digits of its MD5; return what was done."""
        target.parent.mkdir(exist_ok=True)
        for name in _names(photo, target):
            try:
                return self._link_or_copy(photo, name)
            except FileExistsError:
                if name.is_file() and (name.samefile(photo) or filecmp.cmp(photo, name, False)):
                    return "already there"
        raise FileExistsError(f"{name} is another file")

    def _link_or_copy(self, photo: Path, target: Path) -> str:
        """Return what was done; raise FileExistsError if there is such a file."""
        try:
            os.link(photo, target)
        except FileExistsError:
            raise
        except OSError:  # such as on another file system, or on one without hard links
            try:
                shutil.copyfile(photo, self._partial)
                with suppress(OSError):  # some network drives let nobody change times
                    shutil.copystat(photo, self._partial)
                target.touch(exist_ok=False)  # `replace` alone would overwrite another's file
                self._partial.replace(target)
            finally:
                self._partial.unlink(missing_ok=True)
            return "copied"
        return "linked"


def _refuse_given(folder: Path, targets: Iterable[Path], given: list[Path]) -> None:
    """Fail if a class folder is or lies in a given folder, or holds a given file."""
    whole = {path.resolve() for path in given if path.is_dir()}
    partly = {path.parent.resolve() for path in given if not path.is_dir()}
    for target in targets:
        place = target.resolve()
        if place in partly or not whole.isdisjoint([place, *place.parents]):
            raise FieldguideError(
                f"--sort: found {folder}, but {target} is a place of photos to classify; "
                "allowed: a folder whose class folders lie outside of those places"
            )


def _names(photo: Path, target: Path) -> Iterator[Path]:
    yield target
    stem, suffix = _cut(target.stem, _MAX_BYTES), _cut(target.suffix, _MAX_SUFFIX)
    yield target.with_name(f"{stem}-{md5(photo.read_bytes())[:8]}{suffix}")
