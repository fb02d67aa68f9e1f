"""The one place that uses DVC's inner functions, checked with DVC 3.67.1.

DVC documents its commands and `dvc.api`. What they do not offer is here; `pyproject.toml` bounds
DVC to the versions that this module was checked with, and tests/results/test_dvc.py exercises it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fieldguide.core.errors import RemoteError
from fieldguide.core.files import md5, write_bytes

if TYPE_CHECKING:
    from dvc.repo import Repo

    from fieldguide.results.storage import Storage


class ObjectStore:
    """The files of DVC's cache and default remote, by MD5."""

    def __init__(self, root: Path) -> None:
        """Open nothing yet: importing DVC takes a second.

        Args:
            root: the project's folder.
        """
        self._root = root

    def read(self, md5sum: str) -> bytes:
        """Return a file's bytes; what comes from the remote is kept in the cache.

        Args:
            md5sum: of a file, or of a folder's list of files, ending in ".dir".

        Raises:
            RemoteError: neither has it, the remote cannot be asked, or sends other bytes.
        """
        cached = Path(self._repo.cache.local.oid_to_path(md5sum))
        if cached.is_file() and _is_whole(data := cached.read_bytes(), md5sum):
            return data
        data = self._remote.read(md5sum)
        if not _is_whole(data, md5sum):
            raise RemoteError(
                f"remote {self._remote.name}: {md5sum} is damaged there; "
                "`fieldguide remote verify` says more"
            )
        write_bytes(cached, data)
        cached.chmod(0o444)  # as DVC does: a link to it must not be edited
        return data

    @cached_property
    def _repo(self) -> Repo:
        from dvc.exceptions import DvcException  # noqa: PLC0415
        from dvc.repo import Repo  # noqa: PLC0415

        try:
            return Repo(str(self._root))
        except DvcException as err:
            raise RemoteError(str(err)) from err

    @cached_property
    def _remote(self) -> Storage:
        from fieldguide.results.storage import Storage  # noqa: PLC0415

        name = self._repo.config["core"].get("remote")
        if not name:
            raise RemoteError("it is not in the cache, and no default remote is set")
        return Storage(self._repo, str(name), "md5")


def _is_whole(data: bytes, md5sum: str) -> bool:
    return md5(data) == md5sum.removesuffix(".dir")
