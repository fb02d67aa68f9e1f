"""Read several archives as if they had been unpacked into one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from fieldguide.core.errors import ArchiveError
from fieldguide.core.params import DataParams, read_yaml
from fieldguide.prepare.archive import open_archive
from fieldguide.prepare.folder import Folder
from fieldguide.prepare.member import Member, OpenArchive, warn_of_names
from fieldguide.prepare.names import NEVER_PHOTOS, decode_name

_ARCHIVE = re.compile(r".+\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)


class Archives:
    """The members of all archives. If there are several, a member knows its archive's name."""

    def __init__(
        self, archives: dict[str, OpenArchive], documents: list[Member], shown: str
    ) -> None:
        """Join the members.

        Args:
            archives: by the name that their members carry.
            documents: files beside the archives, which are never read.
            shown: name of the whole in messages.
        """
        self.shown = shown
        self.sequential = any(archive.sequential for archive in archives.values())
        self._archives = archives
        self.members = [
            member._replace(archive=name) if name else member
            for name, archive in sorted(archives.items())
            for member in archive.members
        ] + documents
        self.warnings = [
            f"{name or shown}: {warning}"
            for name, archive in sorted(archives.items())
            for warning in warn_of_names(archive.members)
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
            archives and other files that are no documents.
    """
    given = [Path(value)] if isinstance(value, str) else [Path(path) for path in value]
    found = [(place, *_archives_in(place)) for place in given]
    paths = [path for place, archives, _ in found for path in archives or [place]]
    documents = [member for _, _, others in found for member in others]
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
        yield Archives(archives, documents, f"{given[0]}{more}")


def _archives_in(path: Path) -> tuple[list[Path], list[Member]]:
    """Return the archives directly in a folder, and the documents beside them.

    Both are empty for a folder of photos, and for a file.
    """
    if not path.is_dir():
        return [], []
    folder = Folder(path)
    archives = [file for file in folder.files if file.parent == path and _is_archive(file)]
    if not archives:
        return [], []
    others = [
        one for one, file in zip(folder.members, folder.files, strict=True) if file not in archives
    ]
    for member in others:
        if not member.name.lower().endswith(NEVER_PHOTOS):
            raise ArchiveError(
                f"data.archive: {path} holds archives ({archives[0].name}) and other files "
                f"({member.name}); allowed: only photos, or only archives ending in .zip, .tar, "
                ".tar.gz, .tar.bz2 or .tar.xz, with documents beside them"
            )
    return archives, others


def _is_archive(file: Path) -> bool:
    return _ARCHIVE.fullmatch(file.name) is not None


def check_deps(params: DataParams) -> None:
    """Refuse a list of archives, or a label table, if DVC would not notice a change of it.

    For a single archive dvc.yaml has the dep ${data.archive}; DVC cannot put a list there. It also
    has the folder data/labels.

    Raises:
        ArchiveError: an archive or the table is no dep of the stage `prepare`.
        ParamsError: dvc.yaml cannot be read.
    """
    table = Path(params.labels)
    if isinstance(params.archive, str) and not table.is_file():
        return
    try:
        deps = read_yaml(Path("dvc.yaml"), YAML(typ="safe", pure=True).load)["stages"]["prepare"][
            "deps"
        ]
        names = {name for dep in deps for name in ([dep] if isinstance(dep, str) else dep)}
    except (KeyError, TypeError):
        names = set()
    if not isinstance(params.archive, str):
        missing = [
            f"      - ${{data.archive[{k}]}}  # {archive}"
            for k, archive in enumerate(params.archive)
            if names.isdisjoint({f"${{data.archive[{k}]}}", archive})
        ]
        if missing:
            lines = "\n".join(missing)
            raise ArchiveError(
                f"data.archive: dvc.yaml lacks {len(missing)} of the list's {len(params.archive)} "
                "archives among the deps of prepare, so DVC would not notice their changes; in "
                f"place of ${{data.archive}} add:\n{lines}"
            )
    archives = [params.archive] if isinstance(params.archive, str) else params.archive
    covered = [*archives, *names]
    if table.is_file() and not any(_is_below(table, Path(name)) for name in covered):
        raise ArchiveError(
            f"data.labels: {table} is no dep of prepare, so DVC would not notice its changes; move "
            f"it to data/labels/, or add to the deps of prepare in dvc.yaml:\n      - {table}"
        )


def _is_below(path: Path, other: Path) -> bool:
    """Tell whether a path is another one, or lies in it."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(other))
