"""Read photos straight out of a zip, a tar or a folder, without trusting its names or sizes.

Nothing is extracted to disk, so no name can lead out of the archive. Such names are still refused,
because an archive that holds one is damaged or hostile.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self

from fieldguide.core.errors import ArchiveError

MAX_PHOTO_BYTES = 256 * 2**20
# Deflate reaches at most 1032:1 (https://zlib.net/zlib_tech.html); photos stay below 2:1 and flat
# drawings below 50:1. A small archive does no harm at any ratio.
BOMB_RATIO = 200
BOMB_MIN_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
_COMPRESSED: dict[bytes, Callable[..., Any]] = {  # by first bytes
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
# What the libraries raise when bytes are damaged.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    UnicodeDecodeError,
)


class Member(NamedTuple):
    """A member: one file of an archive, whether it is a photo or not."""

    name: str  # as in the archive, with forward slashes
    size: int  # bytes when unpacked; the archive claims so, and may be wrong
    place: int  # where its archive finds it: a position in a list, or an offset in bytes
    archive: str = ""  # name of its archive, if there are several

    @property
    def source(self) -> str:
        """Name for people, with the archive's name in front if there are several."""
        return f"{self.archive}/{self.name}" if self.archive else self.name


class UnreadableMemberError(Exception):
    """The bytes of one member cannot be read; the other members may be fine."""


class OpenArchive(Protocol):
    """One open archive, or several that are read as one."""

    members: list[Member]
    # True if reading is fast only in the order of `Member.archive`, then `Member.place`.
    sequential: bool

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; several threads may call it.

        Raises:
            UnreadableMemberError: the member is damaged, or larger than MAX_PHOTO_BYTES.
        """


@contextmanager
def open_archive(path: Path) -> Iterator[OpenArchive]:
    """Open a zip, a tar (also gzip, bzip2 or xz) or a folder; the content decides, not the name.

    Raises:
        ArchiveError: the archive is missing, of another kind, damaged, encrypted or a bomb, or
            holds a link, a device or a name that leads out of it.
    """
    with ExitStack() as stack:
        yield _open(path, stack)


def _open(path: Path, stack: ExitStack) -> OpenArchive:
    try:
        if path.is_dir():
            return _Folder(path)
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as err:
        raise ArchiveError(
            f"data.archive: {path} does not exist; allowed: a zip, tar or tar.gz file, or a folder"
            " (if DVC tracks the archive: run `dvc pull`)"
        ) from err
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    try:
        if head.startswith(b"PK"):
            return _Zip(path, stack.enter_context(zipfile.ZipFile(path)))
        for magic, opener in _COMPRESSED.items():
            if head.startswith(magic):
                return _Tar(path, stack.enter_context(opener(path)), sequential=True)
        return _Tar(path, stack.enter_context(path.open("rb")), sequential=False)
    except _DAMAGED as err:
        raise ArchiveError(
            f"{path}: not an archive, or cut short or damaged ({err}); allowed: a zip, tar or "
            "tar.gz file, or a folder"
        ) from err


class _Zip:
    sequential = False

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._zip = file
        self._infos = file.infolist()
        self.members = list(self._list(path))

    def _list(self, path: Path) -> Iterator[Member]:
        budget = _Budget(path)
        for place, info in enumerate(self._infos):
            if info.filename.endswith("/"):  # `is_dir` fails on an empty name before Python 3.12
                continue
            name = _checked_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ArchiveError(f"{path}: {name!r} is a link; allowed: files and folders")
            if info.flag_bits & 0x1:
                raise ArchiveError(
                    f"{path}: {name!r} is encrypted; unpack it and pack it without a password"
                )
            budget.add(name, info.file_size)
            yield Member(name, info.file_size, place)

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            with self._zip.open(self._infos[member.place]) as file:
                # Limited, because a member may unpack to more than it declares.
                return file.read(MAX_PHOTO_BYTES + 1)
        except _DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err


class _Tar:
    def __init__(self, path: Path, file: IO[bytes], *, sequential: bool) -> None:
        """List the members.

        Args:
            path: for messages.
            file: unpacked content of the tar; `place` of a member is an offset in it.
            sequential: going back in `file` means unpacking it from the start again.
        """
        self._file = file
        self.sequential = sequential
        self._lock = threading.Lock()
        self.members = list(self._list(path))

    def _list(self, path: Path) -> Iterator[Member]:
        budget = _Budget(path)
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_bounded_header(path)) as tar:
            for info in tar:
                # tarfile turns bytes that are not UTF-8 into surrogates, which no file can store.
                name = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                name = _checked_name(path, name)
                end = info.offset_data
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    kind = "link" if info.issym() or info.islnk() else "device or special file"
                    raise ArchiveError(f"{path}: {name!r} is a {kind}; allowed: files and folders")
                # Before the next header, because reading that unpacks this member.
                budget.add(name, info.size)
                end += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                yield Member(name, info.size, info.offset_data)
        # tarfile takes a header that is cut or damaged for the end. The real end is a zero block.
        self._file.seek(end)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of the archive found after the last readable file")

    def read(self, member: Member) -> bytes:
        _check_size(member)
        try:
            with self._lock:
                self._file.seek(member.place)
                return self._file.read(member.size)
        except _DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err


def _bounded_header(path: Path) -> type[tarfile.TarInfo]:
    """Return a class that refuses large headers: tarfile would read a long name into memory."""

    class BoundedTarInfo(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if not info.isreg() and info.size > MAX_HEADER_BYTES:
                raise ArchiveError(
                    f"{path}: looks like a bomb: a name or attribute has {info.size:,} bytes; "
                    f"allowed: up to {MAX_HEADER_BYTES:,}"
                )
            return info

    return BoundedTarInfo


class _Folder:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._files: list[Path] = []
        self.members: list[Member] = []
        # Links to files are followed, because DVC's cache makes them. Links to folders are refused,
        # because they could form a circle.
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
            if not file.is_file():  # reading a pipe would wait forever
                raise UnreadableMemberError("not a file, or a link to nothing")
            _check_size(member)
            return file.read_bytes()
        except OSError as err:
            raise UnreadableMemberError(f"cannot be read ({err.strerror})") from err


def _refuse(err: OSError) -> None:
    raise ArchiveError(f"{err.filename}: cannot be read ({err.strerror})") from err


class _Budget:
    """Refuses an archive that unpacks to far more bytes than photos do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path.stat().st_size
        self._unpacked = 0

    def add(self, name: str, size: int) -> None:
        self._unpacked += size
        if self._unpacked > max(BOMB_MIN_BYTES, BOMB_RATIO * self._packed):
            raise ArchiveError(
                f"{self._path}: looks like a bomb: {self._packed:,} bytes unpack to at least "
                f"{self._unpacked:,} (at {name!r}); allowed: up to {BOMB_RATIO} times"
            )


def _checked_name(path: Path, name: str) -> str:
    name = name.replace("\\", "/")  # some Windows programs write backslashes
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise ArchiveError(
            f"{path}: member {name!r} leaves the archive; allowed: relative names without '..'"
        )
    return name


def _check_size(member: Member) -> None:
    if member.size > MAX_PHOTO_BYTES:
        raise UnreadableMemberError(
            f"{member.size:,} bytes; allowed: up to {MAX_PHOTO_BYTES:,} a photo"
        )
