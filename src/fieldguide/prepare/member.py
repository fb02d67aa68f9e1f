"""What all kinds of archives have in common: members, limits and errors."""

from __future__ import annotations

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fieldguide.core.errors import ArchiveError
from fieldguide.core.output import counted
from fieldguide.prepare.left_out import TOO_LARGE, UNREADABLE

MAX_PHOTO_BYTES = 256 * 2**20
# Deflate reaches at most 1032:1 (https://zlib.net/zlib_tech.html); photos stay below 2:1 and flat
# drawings below 50:1. A small archive does no harm at any ratio.
BOMB_RATIO = 200
BOMB_MIN_BYTES = 64 * 2**20
# What the libraries raise when bytes are damaged.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    ValueError,
)


class Member(NamedTuple):
    """A member: one file of an archive, whether it is a photo or not."""

    name: str  # as in the archive, with forward slashes
    size: int  # bytes when unpacked; the archive claims so, and may be wrong
    place: int  # where its archive finds it: a position in a list, or an offset in bytes
    archive: str = ""  # name of its archive, if there are several
    certain: bool = True  # False if the encoding of the name is unknown

    @property
    def source(self) -> str:
        """Name for people, with the archive's name in front if there are several."""
        return f"{self.archive}/{self.name}" if self.archive else self.name


class UnreadableMemberError(Exception):
    """The bytes of one member cannot be read; the other members may be fine."""

    reason: str = UNREADABLE


class TooLargeMemberError(UnreadableMemberError):
    """The member has more bytes than any photo."""

    reason = TOO_LARGE


class OpenArchive(Protocol):
    """One open archive, or several that are read as one."""

    members: list[Member]  # without hidden files
    # True if reading is fast only in the order of `Member.archive`, then `Member.place`.
    sequential: bool

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; several threads may call it.

        Raises:
            UnreadableMemberError: the member is damaged, or larger than MAX_PHOTO_BYTES.
        """


class Budget:
    """Refuses an archive that unpacks to far more bytes than photos do."""

    def __init__(self, path: Path) -> None:
        """Set the limit from the size of the archive."""
        self._path = path
        self._packed = path.stat().st_size
        self._unpacked = 0

    def add(self, name: str, size: int) -> None:
        """Count the unpacked bytes of a member.

        Raises:
            ArchiveError: the archive looks like a bomb.
        """
        self._unpacked += size
        if self._unpacked > max(BOMB_MIN_BYTES, BOMB_RATIO * self._packed):
            raise ArchiveError(
                f"{self._path}: looks like a bomb: {self._packed:,} bytes unpack to at least "
                f"{self._unpacked:,} (at {name!r}); allowed: up to {BOMB_RATIO} times"
            )


def checked_name(path: Path, name: str) -> str:
    """Return a member's name with forward slashes.

    Raises:
        ArchiveError: the name leads out of the archive, also on Windows.
    """
    # Some Windows programs write only backslashes. Beside a slash, a backslash may be half of a
    # letter: in Shift-JIS many letters end with its byte.
    name = name if "/" in name else name.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:/", name) or ".." in name.split("/"):
        raise ArchiveError(
            f"{path}: member {name!r} leaves the archive; allowed: relative names without '..'"
        )
    return name


def check_size(size: int) -> None:
    """Refuse a file that is larger than any photo.

    Raises:
        TooLargeMemberError: it has more than MAX_PHOTO_BYTES.
    """
    if size > MAX_PHOTO_BYTES:
        raise TooLargeMemberError(f"{size:,} bytes; allowed: up to {MAX_PHOTO_BYTES:,} a photo")


def warn_of_names(members: Sequence[Member]) -> list[str]:
    """Return a warning, with an example, if there are names in an unknown encoding."""
    names = [member.name for member in members if not member.certain]
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    warning = (
        f"{counted(len(names), 'name')} {verb} not in UTF-8 and read as CP437, such as "
        f"{names[0]!r}; if that looks wrong, pack the photos again with UTF-8 names"
    )
    return [warning]
