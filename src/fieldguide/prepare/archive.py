"""Open an archive of photos without trusting its names or sizes.

Nothing is extracted to disk, so no name can lead out of the archive. Such names are still refused,
because an archive that holds one is damaged or hostile.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fieldguide.core.errors import ArchiveError, first_line
from fieldguide.prepare.folder import Folder
from fieldguide.prepare.member import DAMAGED, OpenArchive
from fieldguide.prepare.tar_archive import TarArchive
from fieldguide.prepare.zip_archive import ZipArchive

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ"  # first bytes
_COMPRESSED: dict[bytes, Callable[..., Any]] = {_GZIP: gzip.open, _BZIP2: bz2.open, _XZ: lzma.open}
_BZIP2_END = 0x177245385090  # 48 bits, then a CRC of 32 bits and up to 7 bits of padding


@contextmanager
def open_archive(path: Path) -> Iterator[OpenArchive]:
    """Open a zip, a tar (also gzip, bzip2 or xz) or a folder; the content decides, not the name.

    Raises:
        ArchiveError: the archive is missing, of another kind, damaged, encrypted or a bomb, goes on
            after its end, or holds a link, a device or a name that leads out of it.
    """
    with ExitStack() as stack:
        yield _open(path, stack)


def _open(path: Path, stack: ExitStack) -> OpenArchive:
    try:
        if path.is_dir():
            return Folder(path)
        if path.exists() and not path.is_file():  # a pipe would wait for its writer forever
            raise ArchiveError(
                f"data.archive: {path} is a device or pipe; allowed: a file or a folder"
            )
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as err:
        raise ArchiveError(
            f"data.archive: {path} does not exist; allowed: a zip or tar file, or a folder (if DVC "
            "tracks it: run `dvc pull`)"
        ) from err
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    try:
        if head.startswith(b"PK"):
            return ZipArchive(path, stack.enter_context(path.open("rb")))
        for magic, opener in _COMPRESSED.items():
            if head.startswith(magic):
                _check_stream_end(path, magic)
                return TarArchive(path, stack.enter_context(opener(path)), sequential=True)
        return TarArchive(path, stack.enter_context(path.open("rb")), sequential=False)
    except DAMAGED as err:
        raise ArchiveError(
            f"{path}: not an archive, or cut short or damaged, or one piece of a split archive "
            f"({first_line(err)}); allowed: a zip or tar file, also .tar.gz, .tar.bz2 and .tar.xz, "
            "or a folder"
        ) from err


def _check_stream_end(path: Path, magic: bytes) -> None:
    """Refuse data after the end of a compressed stream, which bz2 and lzma ignore; gzip does not.

    Source: https://tukaani.org/xz/xz-file-format.txt, section 2.1.2; for bzip2
    https://github.com/dsnet/compress/blob/master/doc/bzip2-format.pdf, section 2.2.
    """
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 64))
        tail = file.read().rstrip(b"\0") if magic == _XZ else file.read()
    if magic == _XZ:
        complete = tail.endswith(b"YZ")
    else:
        bits = int.from_bytes(tail[-11:])
        complete = any(bits >> (32 + pad) & (2**48 - 1) == _BZIP2_END for pad in range(8))
    if magic != _GZIP and not complete:
        raise ArchiveError(
            f"{path}: is cut short, or goes on after its end, as when two archives are joined by "
            "`cat`; unpack each archive and pack the photos again"
        )
