"""Lay classified photos into one folder per class, as hard links or copies."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import md5
from fieldguide.inference.answers import UNSURE, Row
from fieldguide.prepare.names import is_hidden

_MAX_BYTES = 200  # of a folder's name; file systems allow 255, and a number may follow
# Windows takes these names for devices, also with a suffix.
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)


def check_folder(folder: Path, photos: list[Path]) -> None:
    """Fail if the next run would find the sorted photos among those to classify.

    Args:
        folder: for the class folders.
        photos: files and folders to classify.

    Raises:
        FieldguideError: it is, or lies in, one of the folders.
    """
    for given in photos:
        if given.is_dir() and folder.resolve().is_relative_to(given.resolve()):
            raise FieldguideError(
                f"--sort: found {folder}, which lies in {given}; allowed: a folder outside the "
                "folders of photos"
            )


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
    name = name.encode()[:_MAX_BYTES].decode(errors="ignore")
    name = re.sub(r"[. ]$", "_", name)  # Windows drops a last dot or space
    if is_hidden(name) or _DEVICE.fullmatch(name):
        name = f"_{name}_"
    return name or "_"


def _disk_name(name: str) -> str:
    """Return what is equal for names that some disk takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class ClassFolders:
    """Folders for the photos of each class, and one for those with the answer UNSURE.

    A photo arrives under its own name. It is never moved, and no file is ever overwritten: if
    another photo has that name already, eight digits of the photo's MD5 are appended.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        """Make the outer folder.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folders = {label: folder / name for label, name in folder_names(classes).items()}
        self._folders.setdefault(UNSURE, folder / UNSURE)
        # On the same file system as its final place, and apart from those of other processes.
        self._partial = folder / f".{os.getpid()}.partial"
        self.counts: Counter[str] = Counter()  # of "linked", "copied" and "already there"

    def sort(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Lay the photo of each row into its folder, then pass the row on.

        Raises:
            FieldguideError: a photo cannot be linked or copied, for example on a full disk.
        """
        for row in rows:
            if "error" not in row:
                label = row.get("answer", row["classes"][0]["class"])
                photo = Path(row["photo"])
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
        for name in _free_names(photo, target):
            if not os.path.lexists(name):
                return self._link_or_copy(photo, name)
            if name.is_file() and (name.samefile(photo) or filecmp.cmp(photo, name, shallow=False)):
                return "already there"
        raise FileExistsError(f"{name} is another file")

    def _link_or_copy(self, photo: Path, target: Path) -> str:
        try:
            os.link(photo, target)
        except FileExistsError:
            raise
        except OSError:  # such as on another file system, or on one without hard links
            try:
                shutil.copyfile(photo, self._partial)
                if os.path.lexists(target):  # made by another process; `rename` would replace it
                    raise FileExistsError(f"{target} is another file") from None
                self._partial.rename(target)
            finally:
                self._partial.unlink(missing_ok=True)
            return "copied"
        return "linked"


def _free_names(photo: Path, target: Path) -> Iterator[Path]:
    yield target
    yield target.with_stem(f"{target.stem}-{md5(photo.read_bytes())[:8]}")
