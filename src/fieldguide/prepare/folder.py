"""Read the files of a folder in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.member import Member, UnreadableMemberError, check_size
from fieldguide.prepare.names import decode_name, has_photo_suffix, is_hidden


class Folder:
    """The files below a folder; see `OpenArchive`.

    Links to files are followed, because DVC's cache makes them. Links to folders are refused,
    because they could form a circle. Hidden files and folders are skipped.
    """

    sequential = False

    def __init__(self, path: Path) -> None:
        """List the files.

        Raises:
            ArchiveError: a folder is a link, or cannot be read.
        """
        self.files: list[Path] = []  # by `Member.place`
        self.members: list[Member] = []
        for folder, folders, names in os.walk(path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in folders:
                if _is_link(Path(folder, name)):
                    raise ArchiveError(
                        f"{Path(folder, name)}: a link to a folder; allowed: files, folders and "
                        "links to files"
                    )
            for name in sorted(name for name in names if not is_hidden(name)):
                file = Path(folder, name)
                shown, certain = decode_name(os.fsencode(file.relative_to(path)))
                self.members.append(Member(shown, _size(file), len(self.files), certain=certain))
                self.files.append(file)

    def read(self, member: Member) -> bytes:
        """Return a file's bytes; see `OpenArchive`."""
        return read_file(self.files[member.place])


def photos_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the photos below a folder that `prepare` would read, and the other files.

    Both are sorted; neither holds hidden files.

    Raises:
        ArchiveError: a folder is a link, or cannot be read.
    """
    files = sorted(Folder(folder).files)
    photos = [file for file in files if has_photo_suffix(file.name)]
    return photos, [file for file in files if not has_photo_suffix(file.name)]


def read_file(file: Path) -> bytes:
    """Return the bytes of a photo's file.

    Raises:
        UnreadableMemberError: it is no file, too large, or cannot be read.
    """
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would wait for its writer forever
            raise UnreadableMemberError("cannot be read (not a file)")
        check_size(found.st_size)
        return file.read_bytes()
    except OSError as err:
        raise UnreadableMemberError(f"cannot be read ({err.strerror})") from err


def _is_link(folder: Path) -> bool:
    try:
        return folder.is_symlink()
    except OSError as err:  # the folder above it may be listed but not entered
        _refuse(err)
        raise


def _size(file: Path) -> int:
    """Return the size in bytes; 0 if the file cannot be looked at, which reading it will report."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _refuse(err: OSError) -> None:
    raise ArchiveError(f"{err.filename}: cannot be read ({err.strerror})") from err
