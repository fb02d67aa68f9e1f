"""Read several archives as if they had been unpacked into one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from fieldguide.core.errors import ArchiveError
from fieldguide.core.params import read_yaml
from fieldguide.prepare.archive import open_archive
from fieldguide.prepare.member import Member, OpenArchive
from fieldguide.prepare.names import decode_name, has_photo_suffix, is_hidden

_ARCHIVE = re.compile(r".+\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)


class Archives:
    """The members of all archives. If there are several, a member knows its archive's name."""

    def __init__(self, archives: dict[str, OpenArchive], shown: str) -> None:
        self.shown = shown  # name of the whole in messages
        self.sequential = any(archive.sequential for archive in archives.values())
        self._archives = archives
        self.members = [
            member._replace(archive=name) if name else member
            for name, archive in sorted(archives.items())
            for member in archive.members
        ]
        self.warnings = [
            f"{name or shown}: {warning}"
            for name, archive in sorted(archives.items())
            for warning in archive.warnings
        ]

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; see `OpenArchive`."""
        return self._archives[member.archive].read(member)


@contextmanager
def open_archives(value: str | Sequence[str]) -> Iterator[Archives]:
    """Open what `data.archive` names: an archive, a folder of photos or of archives, or a list.

    The order of a list does not matter. If there are several archives, a photo's name begins with
    the file name of its archive, so that equal names in two archives are two photos.

    Raises:
        ArchiveError: see `open_archive`; also if two archives have one name, or a folder holds
            archives and photos.
    """
    given = [Path(value)] if isinstance(value, str) else [Path(path) for path in value]
    paths = [path for place in given for path in _archives_in(place) or [place]]
    several = not isinstance(value, str) or paths != given
    by_name: dict[str, Path] = {}
    for path in paths:
        name = decode_name(os.fsencode(path.name))[0] if several else ""
        first = by_name.setdefault(name, path)
        if first is not path:
            raise ArchiveError(
                f"data.archive: {first} and {path} have one name; allowed: different names, "
                "because they distinguish the photos"
            )
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    with ExitStack() as stack:
        archives = {name: stack.enter_context(open_archive(path)) for name, path in by_name.items()}
        yield Archives(archives, f"{given[0]}{more}")


def _archives_in(path: Path) -> list[Path]:
    """Return the archives directly in a folder; none if it is a folder of photos, or a file."""
    if not path.is_dir():
        return []
    try:
        files = [file for file in sorted(path.iterdir()) if not file.is_dir()]
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    archives = [
        file for file in files if _ARCHIVE.fullmatch(file.name) and not is_hidden(file.name)
    ]
    if archives:
        with open_archive(path) as folder:
            for member in folder.members:
                if has_photo_suffix(member.name):
                    raise ArchiveError(
                        f"data.archive: {path} holds archives ({archives[0].name}) and photos "
                        f"({member.name}); allowed: only archives, or only photos"
                    )
    return archives


def check_deps(value: str | Sequence[str]) -> None:
    """Refuse a list of archives if DVC would not notice a change of each of them.

    For a single path, dvc.yaml has the dep ${data.archive}; DVC cannot put a list there.

    Args:
        value: `data.archive`.

    Raises:
        ArchiveError: an archive is no dep of the stage `prepare`.
        ParamsError: dvc.yaml cannot be read.
    """
    if isinstance(value, str):
        return
    try:
        deps = read_yaml(Path("dvc.yaml"), YAML(typ="safe", pure=True).load)["stages"]["prepare"][
            "deps"
        ]
        names = {name for dep in deps for name in ([dep] if isinstance(dep, str) else dep)}
    except (KeyError, TypeError):
        names = set()
    missing = [
        f"      - ${{data.archive[{k}]}}  # {archive}"
        for k, archive in enumerate(value)
        if names.isdisjoint({f"${{data.archive[{k}]}}", archive})
    ]
    if missing:
        lines = "\n".join(missing)
        raise ArchiveError(
            f"data.archive: dvc.yaml lacks {len(missing)} of the list's {len(value)} archives "
            "among the deps of prepare, so DVC would not notice their changes; in place of "
            f"${{data.archive}} add:\n{lines}"
        )
