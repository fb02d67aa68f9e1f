"""Several archives read as if they had been unpacked into one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath

from ruamel.yaml import YAML

from fieldguide.core.errors import ArchiveError
from fieldguide.core.params import read_yaml
from fieldguide.prepare.archive import Archive, Member, open_archive
from fieldguide.prepare.layout import PHOTO_SUFFIXES

_ARCHIVE = re.compile(r"[^.].*\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)
_ENTRY = re.compile(r"\$\{data\.archive\[(\d+)\]\}")  # DVC's way to name one of a list


class Archives:
    """The members of all; those of several know which one they are from."""

    def __init__(self, archives: dict[str, Archive], shown: str) -> None:
        self.shown = shown  # in messages
        self.sequential = any(archive.sequential for archive in archives.values())
        self._archives = archives
        self.members = [
            member._replace(archive=name) if name else member
            for name, archive in sorted(archives.items())
            for member in archive.members
        ]

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; see `Archive`."""
        return self._archives[member.archive].read(member)

    def close(self) -> None:
        """Nothing; `open_archives` closes what it opened."""


@contextmanager
def open_archives(value: str | Sequence[str]) -> Iterator[Archives]:
    """Open what `data.archive` names: an archive, a folder of photos or of archives, or a list.

    The order of a list does not matter. A photo of one among several archives has the archive's
    file name in front of its own, so that equal names are two photos.

    Raises:
        ArchiveError: see `open_archive`; also where two archives have one name, or a folder holds
            archives and photos.
    """
    given = [Path(value)] if isinstance(value, str) else [Path(path) for path in value]
    paths = [path for one in given for path in _packed(one) or [one]]
    several = not isinstance(value, str) or paths != given
    by_name: dict[str, Path] = {}
    for path in paths:
        # A name that is not UTF-8 is shown with replacement characters.
        name = os.fsencode(path.name).decode("utf-8", "replace") if several else ""
        first = by_name.setdefault(name, path)
        if first is not path:
            raise ArchiveError(
                f"data.archive: {first} and {path} have one name; allowed: names that differ, as "
                "they tell photos apart"
            )
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    with ExitStack() as stack:
        archives = {
            name: stack.enter_context(open_archive(path)) for name, path in sorted(by_name.items())
        }
        yield Archives(archives, f"{given[0]}{more}")


def _packed(path: Path) -> list[Path]:
    """Archives that lie directly in a folder; none of a folder of photos, or a file."""
    if not path.is_dir():
        return []
    try:
        found = [file for file in sorted(path.iterdir()) if _ARCHIVE.fullmatch(file.name)]
    except OSError as err:
        raise ArchiveError(f"data.archive: {path} cannot be read ({err.strerror})") from err
    found = [file for file in found if not file.is_dir()]
    if found:
        with open_archive(path) as folder:
            names = (PurePath(member.name) for member in folder.members)
            photo = next((name for name in names if name.suffix.lower() in PHOTO_SUFFIXES), None)
        if photo is not None:
            raise ArchiveError(
                f"data.archive: {path} holds archives ({found[0].name}) and photos ({photo}); "
                "allowed: a folder of either"
            )
    return found


def check_deps(value: str | Sequence[str], path: Path = Path("dvc.yaml")) -> None:
    """Refuse a list of archives of which DVC would not see every change.

    Of one path dvc.yaml's ${data.archive} takes care; DVC puts no list there.

    Raises:
        ArchiveError: an archive is no dep of the stage `prepare`.
        ParamsError: dvc.yaml cannot be read.
    """
    if isinstance(value, str):
        return
    try:
        deps = read_yaml(path, YAML(typ="safe", pure=True).load)["stages"]["prepare"]["deps"]
        names = {name for dep in deps for name in ([dep] if isinstance(dep, str) else dep)}
    except (KeyError, TypeError):
        names = set()
    entries = (_ENTRY.fullmatch(name) for name in names)
    numbers = {int(entry[1]) for entry in entries if entry}
    watched = {PurePath(name) for name in names}
    missing = [
        k
        for k, archive in enumerate(value)
        if k not in numbers and PurePath(archive) not in watched
    ]
    if missing:
        lines = "\n".join(f"      - ${{data.archive[{k}]}}  # {value[k]}" for k in missing)
        raise ArchiveError(
            f"data.archive: {path} does not have {len(missing)} of the list's {len(value)} "
            "archives among the deps of prepare, so DVC would not see them change; add in place "
            f"of ${{data.archive}}:\n{lines}"
        )
