"""Read photos out of a zip, a tar or a folder in place, without trusting names or sizes.

Nothing is ever extracted to disk, so a name cannot escape; such names are refused all the same,
because an archive that holds one is damaged or hostile.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Protocol, cast

from fieldguide.errors import ArchiveError

MAX_PHOTO_BYTES = 256 * 2**20
# Deflate reaches 1032:1 at best (https://zlib.net/zlib_tech.html); photos stay below 2:1 and flat
# drawings below 50:1. Small archives are harmless whatever their ratio.
BOMB_RATIO = 200
BOMB_MIN_BYTES = 64 * 2**20


class Member(NamedTuple):
    """One file of an archive."""

    name: str  # as in the archive, with forward slashes
    size: int  # bytes unpacked, as the archive declares: a claim, not a fact
    place: int  # where the archive finds it: row of its listing, or offset in bytes


class UnreadableMemberError(Exception):
    """One member's bytes cannot be had; the others may be fine."""


class Archive(Protocol):
    """An opened archive."""

    members: list[Member]
    # True where members must be read one after the other in the order of `place` to be fast.
    sequential: bool

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; may be called from many threads.

        Raises:
            UnreadableMemberError: damaged, or larger than MAX_PHOTO_BYTES.
        """

    def close(self) -> None:
        """Release the file."""


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip, a tar (also gzip, bzip2 or xz) or a folder, told apart by content.

    Raises:
        ArchiveError: missing, of another kind, damaged, encrypted, a bomb, or holding a link, a
            device or a name that leaves the archive.
    """
    archive = _open(path)
    try:
        yield archive
    finally:
        archive.close()


def _open(path: Path) -> Archive:
    try:
        if path.is_dir():
            return _Folder(path)
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as err:
        raise ArchiveError(
            f"data.archive: {path} does not exist; allowed: a zip, tar or tar.gz file, or a folder"
            " (an archive that DVC tracks: run `dvc pull`)"
        ) from err
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    try:
        if zipfile.is_zipfile(path):
            return _Zip(path)
        if head.startswith(b"PK\x03\x04"):
            raise ArchiveError(f"{path}: a zip cut short or damaged: its directory is missing")
        return _Tar(path)
    except (zipfile.BadZipFile, NotImplementedError) as err:
        raise ArchiveError(f"{path}: a damaged zip ({err})") from err
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as err:
        if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zX":
            raise ArchiveError(f"{path}: a compressed tar cut short or damaged ({err})") from err
        raise ArchiveError(
            f"{path}: not an archive ({err}); allowed: zip, tar, tar.gz or a folder"
        ) from err


class _Zip:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path)
        self._infos = [info for info in self._zip.infolist() if not info.is_dir()]
        budget = _Budget(path)
        self.members = []
        for place, info in enumerate(self._infos):
            name = _checked_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ArchiveError(f"{path}: {name!r} is a link; allowed: files and folders")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{path}: {name!r} is encrypted; allowed: plain members")
            budget.add(name, info.file_size)
            self.members.append(Member(name, info.file_size, place))

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            with self._zip.open(self._infos[member.place]) as file:
                return file.read(MAX_PHOTO_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as e:
            raise UnreadableMemberError(f"damaged in the archive ({e})") from e

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by close()
            self.sequential = False
        except tarfile.ReadError:
            self._tar = tarfile.open(path, "r:*")  # noqa: SIM115
            self.sequential = True  # going back means unpacking from the start again
        self._file = cast("IO[bytes]", self._tar.fileobj)  # unpacked; `place` is an offset in it
        self._lock = threading.Lock()
        budget = _Budget(path)
        self.members = []
        end = 0
        for info in self._tar:
            name = _checked_name(path, info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                kind = "link" if info.issym() or info.islnk() else "device or special file"
                raise ArchiveError(f"{path}: {name!r} is a {kind}; allowed: files and folders")
            # Before the listing goes on, which unpacks this member.
            budget.add(name, info.size)
            self.members.append(Member(name, info.size, info.offset_data))
            end = max(end, info.offset_data + info.size)
        # Python's tarfile takes a file cut in its last member for whole.
        self._file.seek(max(0, end - 1))
        if end and not self._file.read(1):
            raise tarfile.ReadError("unexpected end of data")

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            if not self.sequential:
                return os.pread(self._file.fileno(), member.size, member.place)
            with self._lock:
                self._file.seek(member.place)
                return self._file.read(member.size)
        except (EOFError, zlib.error, lzma.LZMAError) as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err

    def close(self) -> None:
        self._tar.close()


class _Folder:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[Path] = []
        self.members = []
        # Links to folders are not followed. Links to files are: DVC's cache makes them.
        for folder, folders, names in os.walk(path, onerror=self._refuse):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                # A name that is not UTF-8 is shown with replacement characters.
                shown = os.fsencode(file.relative_to(path)).decode("utf-8", "replace")
                size = file.stat().st_size if file.is_file() else 0
                self.members.append(Member(shown, size, len(self._files)))
                self._files.append(file)

    def _refuse(self, err: OSError) -> None:
        raise ArchiveError(f"{err.filename}: cannot be read ({err.strerror})") from err

    def read(self, member: Member) -> bytes:
        _check_size(member)
        file = self._files[member.place]
        if not file.is_file():  # reading a pipe would wait for ever
            raise UnreadableMemberError("not a file, or a link to nothing")
        try:
            with file.open("rb") as opened:
                return opened.read(MAX_PHOTO_BYTES)
        except OSError as err:
            raise UnreadableMemberError(f"cannot be read ({err.strerror})") from err

    def close(self) -> None:
        """Nothing is open between reads."""


class _Budget:
    """Stops at an archive that unpacks to far more than photos could."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path.stat().st_size
        self._unpacked = 0

    def add(self, name: str, size: int) -> None:
        self._unpacked += size
        if self._unpacked > max(BOMB_MIN_BYTES, BOMB_RATIO * self._packed):
            raise ArchiveError(
                f"{self._path}: looks like a zip bomb: {self._packed:,} bytes unpack to more than "
                f"{self._unpacked:,} (at {name!r}); allowed: up to {BOMB_RATIO} times"
            )


def _checked_name(path: Path, name: str) -> str:
    name = name.replace("\\", "/")  # written by some Windows programs
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        raise ArchiveError(
            f"{path}: member {name!r} leaves the archive; allowed: relative names without '..'"
        )
    # Bytes that are not UTF-8 reach us as lone surrogates, which no file could store again.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _check_size(member: Member) -> None:
    if member.size > MAX_PHOTO_BYTES:
        raise UnreadableMemberError(
            f"{member.size:,} bytes; allowed: up to {MAX_PHOTO_BYTES:,} a photo"
        )
