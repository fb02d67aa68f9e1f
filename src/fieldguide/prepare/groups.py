"""Join photos that belong together: by a table or pattern, as near-copies, or as a burst."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.output import counted, listed
from fieldguide.core.params import DataParams
from fieldguide.prepare.components import connected
from fieldguide.prepare.layout import SPLIT_OF, Photo


class Group(NamedTuple):
    """Photos that must be in one split: one photo, or several that belong together."""

    rows: list[int]  # sorted
    key: bytes  # decides the split together with `data.seed`; stays when photos are added
    name: str  # for people


def given_groups(
    photos: Sequence[Photo], params: DataParams, warnings: list[str]
) -> list[tuple[str, ...]]:
    """Return what `data.group` says of each photo; nothing for a group of its own.

    Raises:
        ArchiveError: no photo has a group.
    """
    if params.group == "none":
        return [()] * len(photos)
    if isinstance(params.group, list):
        found, lack = [photo.group for photo in photos], f"have no {', '.join(params.group)}"
    else:
        pattern = re.compile(params.group)
        in_splits = len({photo.split for photo in photos}) > 1
        paths = (photo.member.source for photo in photos)
        matches = (pattern.search(_without_split(path) if in_splits else path) for path in paths)
        found = [(match[1],) if match and match[1] else () for match in matches]
        lack = "do not match data.group"
    alone = [photo.member.source for photo, group in zip(photos, found, strict=True) if group == ()]
    if len(alone) == len(photos):
        raise ArchiveError(
            f"data.group: {params.group}: all {counted(len(photos), 'photo')} {lack}, such as "
            f"{alone[0]}; allowed: a group for some of them"
        )
    if alone:
        warnings.append(
            f"{len(alone):,} of {counted(len(photos), 'photo')} {lack}, such as {alone[0]}; each "
            "of them is a group of its own"
        )
    return found


def _without_split(path: str) -> str:
    """Take the folder of the split out of a path, so that a group may be seen in two splits."""
    names = path.split("/")
    place = next((k for k, name in enumerate(names[:-1]) if name.lower() in SPLIT_OF), None)
    return path if place is None else "/".join(names[:place] + names[place + 1 :])


def make_groups(
    photos: Sequence[Photo],
    digests: Sequence[bytes],
    given: Sequence[tuple[str, ...]],
    pairs: Iterable[tuple[int, int]],
) -> list[Group]:
    """Return all groups of the photos that have a digest; most have one photo.

    Args:
        photos: by row.
        digests: SHA-256 by row; empty for a photo that is left out.
        given: by row, from `given_groups`.
        pairs: rows that belong together for another reason.
    """
    first: dict[tuple[str, ...], int] = {}
    same = [(first.setdefault(group, row), row) for row, group in enumerate(given) if group]
    # Photos that are left out still connect others.
    several = [
        [row for row in rows if digests[row]] for rows in connected(len(photos), [*same, *pairs])
    ]
    several = [rows for rows in several if rows]
    joined = {row for rows in several for row in rows}
    alone = ([row] for row, digest in enumerate(digests) if digest and row not in joined)
    groups = []
    for rows in (*several, *alone):
        keys = {_key(given[row], digests[row]) for row in rows}
        names = sorted({" / ".join(given[row]) for row in rows if given[row]})
        if not names:
            source = photos[min(rows, key=lambda row: digests[row])].member.source
            names = [source if len(rows) == 1 else f"{source} and others"]
        groups.append(Group(rows, min(keys), listed(names, most=3)))
    return groups


def _key(given: tuple[str, ...], digest: bytes) -> bytes:
    return hashlib.sha256("\0".join(("group", *given)).encode()).digest() if given else digest
