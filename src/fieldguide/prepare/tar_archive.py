"""Read the members of a tar, also a compressed one."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.member import (
    BOMB_MIN_BYTES,
    DAMAGED,
    Budget,
    Member,
    UnreadableMemberError,
    check_size,
    checked_name,
)
from fieldguide.prepare.names import decode_name, is_hidden

MAX_HEADER_BYTES = 2**20
_PIECE = 2**20  # bytes read at once after the end mark
# Kinds of members that are refused, with the cure.
_FOLLOW = "pack it again with `tar --dereference --hard-dereference`"
_KINDS = {
    tarfile.SYMTYPE: ("symbolic link", _FOLLOW),
    tarfile.LNKTYPE: ("hard link", _FOLLOW),
    tarfile.GNUTYPE_SPARSE: ("sparse file", "pack it again with `tar` without `--sparse`"),
    b"V": ("volume label", "pack it again with `tar` without `--label`"),
    b"M": ("file that began in another volume", "join the volumes by unpacking them all"),
    b"D": ("folder of an incremental backup", "pack it again with a plain `tar -cf`"),
}
_SPECIAL = ("device or special file", "pack only files and folders")


class TarArchive:
    """A tar file; see `OpenArchive`."""

    def __init__(self, path: Path, file: IO[bytes], *, sequential: bool) -> None:
        """List the members.

        Args:
            path: for messages.
            file: unpacked content of the tar; `place` of a member is an offset in it.
            sequential: going back in `file` means unpacking it from the start again.

        Raises:
            ArchiveError: a member cannot be read, or the archive goes on after its end mark.
            tarfile.TarError: the archive is damaged; other types of DAMAGED too.
        """
        self._file = file
        self.sequential = sequential
        self._lock = threading.Lock()
        self.members = list(self._list(path))

    def _list(self, path: Path) -> Iterator[Member]:
        budget = Budget(path)
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_bounded_header(path)) as tar:
            for info in tar:
                # tarfile turns bytes that are not UTF-8 into surrogates, which no file can store.
                name, certain = decode_name(info.name.encode("utf-8", "surrogateescape"))
                name = checked_name(path, name)
                end = info.offset_data
                if info.isdir():
                    continue
                if info.size < 0:  # tarfile would go back and read the same header again
                    raise tarfile.ReadError(f"{name!r} has {info.size} bytes")
                # Before the next header, because reading that unpacks this member.
                budget.add(name, info.size)
                if info.isreg():
                    end += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if is_hidden(name):
                    continue
                _check_kind(path, name, info)
                yield Member(name, info.size, info.offset_data, certain=certain)
        self._check_end(path, end)

    def _check_end(self, path: Path, end: int) -> None:
        """Check that the members end with a zero block, and that nothing follows it.

        tarfile takes a header that is cut or damaged for the end, and stops at the first end mark.
        """
        self._file.seek(end)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of the archive found after the last readable file")
        padding = 0
        while piece := self._file.read(_PIECE):
            padding += len(piece)
            if piece.strip(b"\0") or padding > BOMB_MIN_BYTES:
                raise ArchiveError(
                    f"{path}: goes on after its end mark, as when two archives are joined by `cat`;"
                    " unpack it with `tar --ignore-zeros` and pack the photos again"
                )

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; see `OpenArchive`."""
        check_size(member.size)
        try:
            with self._lock:
                self._file.seek(member.place)
                return self._file.read(member.size)
        except DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err


def _check_kind(path: Path, name: str, info: tarfile.TarInfo) -> None:
    """Refuse a member that is no ordinary file."""
    if info.isreg() and not info.issparse():
        return
    kind = tarfile.GNUTYPE_SPARSE if info.issparse() else info.type
    what, cure = _KINDS.get(kind, _SPECIAL)
    raise ArchiveError(f"{path}: {name!r} is a {what}; allowed: files and folders; {cure}")


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
