"""Read the members of a zip."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.member import (
    DAMAGED,
    MAX_PHOTO_BYTES,
    Budget,
    Member,
    UnreadableMemberError,
    check_size,
    checked_name,
)
from fieldguide.prepare.names import decode_name, is_hidden

_UTF8, _ENCRYPTED = 0x800, 0x1  # bits of the general purpose flag
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_METHODS = {9: "Deflate64", 20: "Zstandard", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
_SPLIT_MARK_BYTES = 4  # may come before the first member (APPNOTE.TXT 8.5.4)
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field (APPNOTE.TXT 4.6.9)
_MEMBER = b"PK\x03\x04"  # first bytes of a member's header
_HEADER = struct.Struct("<26xHH")  # the header's last fields: bytes of the name and of extra fields
_LIKELY_EXTRA = 256  # bytes of extra fields that are read with the header
_END = b"PK\x05\x06"  # of the end record, which has 22 bytes and a comment (APPNOTE.TXT 4.3.16)
_END_BYTES = 22
_MAX_COMMENT = 2**16 - 1


class ZipArchive:
    """A zip file; see `OpenArchive`."""

    sequential = False

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """List the members.

        Args:
            path: for messages.
            file: the zip, opened.

        Raises:
            ArchiveError: a member cannot be read, or the file holds more than its directory lists.
            zipfile.BadZipFile: the directory is damaged; other types of DAMAGED too.
        """
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._infos = self._zip.infolist()
        _check_all_is_listed(path, file, self._infos)
        self.members = list(self._list(path))

    def _list(self, path: Path) -> Iterator[Member]:
        budget = Budget(path)
        for place, info in enumerate(self._infos):
            name, certain = _name_of(info)
            name = checked_name(path, name)
            is_folder = name.endswith("/") and info.file_size == 0
            if is_folder or is_hidden(name):
                continue
            _check_kind(path, name, info)
            budget.add(name, info.file_size)
            yield Member(name, info.file_size, place, certain=certain)

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; see `OpenArchive`."""
        info = self._infos[member.place]
        check_size(max(member.size, info.compress_size))
        try:
            if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                return self._read_at_once(info)
            with self._zip.open(info) as file:
                # Limited, because a member may unpack to more than it declares.
                return file.read(MAX_PHOTO_BYTES + 1)
        except DAMAGED as err:
            raise UnreadableMemberError(f"damaged in the archive ({err})") from err

    def _read_at_once(self, info: zipfile.ZipInfo) -> bytes:
        """Read header and content in one call, and check them.

        zipfile reads them piece by piece under a lock, for which the other threads wait: `prepare`
        of small photos was 1.15 times as fast without (docs/benchmarks.md).

        Source: APPNOTE.TXT 4.3.7.
        """
        # The header tells where the content begins; most often it is within what is read first.
        likely = _HEADER.size + len(info.filename) + _LIKELY_EXTRA + info.compress_size
        data = os.pread(self._file.fileno(), likely, info.header_offset)
        if len(data) < _HEADER.size or not data.startswith(_MEMBER):
            raise zipfile.BadZipFile("no header where its directory says")
        start = _HEADER.size + sum(_HEADER.unpack_from(data))
        end = start + info.compress_size
        if end > likely:
            data = os.pread(self._file.fileno(), end, info.header_offset)
        content = data[start:end]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            # Limited, because a member may unpack to more than it declares.
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacking.decompress(content, info.file_size + 1)
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise zipfile.BadZipFile("its bytes do not fit its CRC-32")
        return content


def _check_kind(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    """Refuse a member that is no file, is encrypted, or is compressed in a way Python lacks."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if it was not packed on Unix
    if kind not in (0, stat.S_IFREG):
        what = "link" if kind == stat.S_IFLNK else "folder, device or special file"
        raise ArchiveError(
            f"{path}: {name!r} is a {what}; allowed: files and folders; pack it again with "
            "`zip -r`, which packs the files that links lead to"
        )
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(
            f"{path}: {name!r} is encrypted; unpack it and pack it without a password"
        )
    if info.compress_type not in _METHODS:
        method = _OTHER_METHODS.get(info.compress_type, "unknown")
        raise ArchiveError(
            f"{path}: {name!r} is compressed with method {info.compress_type} ({method}); allowed: "
            "stored, Deflate, bzip2 and LZMA; unpack it and pack it again, for example with `zip "
            "-r`"
        )


def _name_of(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return a member's name, and whether its encoding is certain.

    Finder and Info-ZIP write UTF-8 without the flag that says so. `orig_filename` is the name as
    zipfile has decoded it; from Python 3.12 on, `filename` may be that of the extra field.
    """
    written = info.orig_filename
    if info.flag_bits & _UTF8:
        return written.partition("\0")[0], True
    raw = written.encode("cp437")
    name, certain = decode_name(raw)
    found = _unicode_path(info.extra, raw)
    return (found or name).partition("\0")[0], certain or found is not None


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the UTF-8 name in the extra fields, if it belongs to this name."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == _UNICODE_PATH and field[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return field[5:].decode("utf-8", "replace")
        at += 4 + size
    return None


def _check_all_is_listed(path: Path, file: IO[bytes], infos: list[zipfile.ZipInfo]) -> None:
    """Refuse a file of which zipfile reads only a part, such as two zips joined by `cat`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _MAX_COMMENT))
    tail = file.read()
    end = tail.rfind(_END)
    comment = int.from_bytes(tail[end + 20 : end + 22], "little")
    rest = tail[end + _END_BYTES + comment :].strip(b"\0\r\n ")
    first = min((info.header_offset for info in infos), default=0)
    if rest or first > _SPLIT_MARK_BYTES:
        raise ArchiveError(
            f"{path}: holds more than its directory lists, as when two archives are joined by "
            "`cat`; unpack each archive and pack the photos again"
        )
