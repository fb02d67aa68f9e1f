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
from pathlib import Path
from typing import IO, NamedTuple, Protocol, Self, cast

from fieldguide.core.errors import ArchiveError

MAX_PHOTO_BYTES = 256 * 2**20
# Deflate reaches 1032:1 at best (https://zlib.net/zlib_tech.html); photos stay below 2:1 and flat
# drawings below 50:1. Small archives are harmless whatever their ratio.
BOMB_RATIO = 200
BOMB_MIN_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
# First bytes of each kind of archive; a tar has its own 257 bytes in.
_MAGIC = {
    b"PK": "zip",
    b"\x1f\x8b": "tar.gz",
    b"BZh": "tar.bz2",
    b"\xfd7zXZ": "tar.xz",
    b"ustar": "tar",
}
# What the libraries raise at damaged bytes.
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, OSError, UnicodeDecodeError),
)


class Member(NamedTuple):
    """One file of an archive."""

    name: str  # as in the archive, with forward slashes
    size: int  # bytes unpacked, as the archive declares: a claim, not a fact
    place: int  # where the archive finds it: row of its listing, or offset in bytes
    archive: str = ""  # which one, of several

    @property
    def source(self) -> str:
        """Name for people, which says the archive too where there are several."""
        return f"{self.archive}/{self.name}" if self.archive else self.name


class UnreadableMemberError(Exception):
    """One member's bytes cannot be had; the others may be fine."""


class Archive(Protocol):
    """An opened archive."""

    members: list[Member]
    # True where members must be read one after the other in the order of `archive` and `place` to
    # be fast.
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
            head = file.read(512)
    except FileNotFoundError as err:
        raise ArchiveError(
            f"data.archive: {path} does not exist; allowed: a zip, tar or tar.gz file, or a folder"
            " (an archive that DVC tracks: run `dvc pull`)"
        ) from err
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    try:
        return _Zip(path) if head.startswith(b"PK") else _Tar(path)
    except _DAMAGED as err:
        reason = str(err).partition("\n")[0]
        for magic, kind in _MAGIC.items():
            if head.startswith(magic) or head[257:].startswith(magic):
                raise ArchiveError(f"{path}: a {kind} cut short or damaged ({reason})") from err
        raise ArchiveError(
            f"{path}: not an archive; allowed: zip, tar, tar.gz or a folder"
        ) from err


class _Zip:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        try:
            self._infos = self._zip.infolist()
            self.members = self._listing(path)
        except BaseException:
            self.close()
            raise

    def _listing(self, path: Path) -> list[Member]:
        budget = _Budget(path)
        members = []
        for place, info in enumerate(self._infos):
            if info.filename.endswith("/"):  # `is_dir` fails at an empty name before Python 3.12
                continue
            name = _checked_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ArchiveError(f"{path}: {name!r} is a link; allowed: files and folders")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{path}: {name!r} is encrypted; allowed: plain members")
            budget.add(name, info.file_size)
            members.append(Member(name, info.file_size, place))
        return members

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            with self._zip.open(self._infos[member.place]) as file:
                return file.read(MAX_PHOTO_BYTES + 1)
        except _DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, path: Path) -> None:
        header = _bounded_header(path)
        try:
            self._tar = tarfile.open(path, "r:", tarinfo=header)  # noqa: SIM115 - closed by close()
            self.sequential = False
        except tarfile.ReadError:
            self._tar = tarfile.open(path, "r:*", tarinfo=header)  # noqa: SIM115
            self.sequential = True  # going back means unpacking from the start again
        self._file = cast("IO[bytes]", self._tar.fileobj)  # unpacked; `place` is an offset in it
        self._lock = threading.Lock()
        try:
            self.members = self._listing(path)
        except BaseException:
            self.close()
            raise

    def _listing(self, path: Path) -> list[Member]:
        budget = _Budget(path)
        members = []
        for info in self._tar:
            name = _checked_name(path, info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                kind = "link" if info.issym() or info.islnk() else "device or special file"
                raise ArchiveError(f"{path}: {name!r} is a {kind}; allowed: files and folders")
            # Before the listing goes on, which unpacks this member.
            budget.add(name, info.size)
            members.append(Member(name, info.size, info.offset_data))
        # Python's tarfile takes a cut or a damaged header for the end; the end is a zero block.
        self._file.seek(self._tar.offset)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end after {len(members):,} files")
        return members

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            if not self.sequential:
                return os.pread(self._file.fileno(), member.size, member.place)
            with self._lock:
                self._file.seek(member.place)
                return self._file.read(member.size)
        except _DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err

    def close(self) -> None:
        self._tar.close()


def _bounded_header(path: Path) -> type[tarfile.TarInfo]:
    """Refuse long names and attributes that `tarfile` would read into memory whole."""
    held_in_memory = {
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    }

    class BoundedTarInfo(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if info.type in held_in_memory and info.size > MAX_HEADER_BYTES:
                raise ArchiveError(
                    f"{path}: looks like a bomb: a name or attribute of {info.size:,} bytes; "
                    f"allowed: up to {MAX_HEADER_BYTES:,}"
                )
            return info

    return BoundedTarInfo


class _Folder:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._files: list[Path] = []
        self.members = []
        # Links to files are followed: DVC's cache makes them. Links to folders could go in circles.
        for folder, folders, names in os.walk(path, onerror=_refuse):
            folders.sort()
            for name in folders:
                if Path(folder, name).is_symlink():
                    raise ArchiveError(
                        f"{Path(folder, name)}: a link to a folder; allowed: files, folders and "
                        "links to files"
                    )
            for name in sorted(names):
                file = Path(folder, name)
                # A name that is not UTF-8 is shown with replacement characters.
                shown = os.fsencode(file.relative_to(path)).decode("utf-8", "replace")
                size = file.stat().st_size if file.is_file() else 0
                self.members.append(Member(shown, size, len(self._files)))
                self._files.append(file)

    def read(self, member: Member) -> bytes:
        file = self._files[member.place]
        try:
            if not file.is_file():  # reading a pipe would wait for ever
                raise UnreadableMemberError("not a file, or a link to nothing")
            _check_size(member)
            return file.read_bytes()
        except OSError as err:
            raise UnreadableMemberError(f"cannot be read ({err.strerror})") from err

    def close(self) -> None:
        """Nothing is open between reads."""


def _refuse(err: OSError) -> None:
    raise ArchiveError(f"{err.filename}: cannot be read ({err.strerror})") from err


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
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise ArchiveError(
            f"{path}: member {name!r} leaves the archive; allowed: relative names without '..'"
        )
    if name.isascii():
        return name  # the very object: names are most of what 100,000 photos take in memory
    # Bytes that are not UTF-8 reach us as lone surrogates, which no file could store again.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _check_size(member: Member) -> None:
    if member.size > MAX_PHOTO_BYTES:
        raise UnreadableMemberError(
            f"{member.size:,} bytes; allowed: up to {MAX_PHOTO_BYTES:,} a photo"
        )
