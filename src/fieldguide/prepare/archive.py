"""Open an archive of photos without trusting its names or sizes.

Nothing is extracted to disk, so no name can lead out of the archive. Such names are still refused,
because an archive that holds one is damaged or hostile.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.folder import Folder
from fieldguide.prepare.member import DAMAGED, OpenArchive
from fieldguide.prepare.tar_archive import TarArchive
from fieldguide.prepare.zip_archive import ZipArchive

_COMPRESSED: dict[bytes, Callable[..., Any]] = {  # by first bytes
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


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
            f"data.archive: {path} does not exist; allowed: a zip, tar or tar.gz file, or a folder"
            " (if DVC tracks the archive: run `dvc pull`)"
        ) from err
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    try:
        if head.startswith(b"PK"):
            return ZipArchive(path, stack.enter_context(path.open("rb")))
        for magic, opener in _COMPRESSED.items():
            if head.startswith(magic):
                return TarArchive(path, stack.enter_context(opener(path)), sequential=True)
        return TarArchive(path, stack.enter_context(path.open("rb")), sequential=False)
    except DAMAGED as err:
        raise ArchiveError(
            f"{path}: not an archive, or cut short or damaged ({err}); allowed: a zip, tar or "
            "tar.gz file, or a folder"
        ) from err
