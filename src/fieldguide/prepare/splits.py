"""Find copies to leave out, and divide the photos of each class into splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from fieldguide.core.errors import ArchiveError


def find_copies(
    digests: Sequence[bytes], labels: Sequence[str], splits: Sequence[str]
) -> dict[int, str]:
    """Return the rows to leave out so that no photo is in two splits, each with the reason.

    All test photos stay. Of identical photos in the other splits one stays: the first of "val",
    else the first of "train". None stays if they have different labels.

    Args:
        digests: SHA-256 of each photo's bytes; empty for a photo that cannot be used.
        labels: class name of each photo.
        splits: "train", "val" or "test" of each photo.
    """
    first: dict[bytes, int] = {}
    groups: dict[bytes, list[int]] = {}  # rows of photos that have copies
    for row, digest in enumerate(digests):
        if digest and first.setdefault(digest, row) != row:
            groups.setdefault(digest, [first[digest]]).append(row)
    left_out: dict[int, str] = {}
    for rows in groups.values():
        others = [row for row in rows if splits[row] != "test"]
        if len(others) < len(rows):
            left_out |= dict.fromkeys(others, "copy of a test photo")
        elif len({labels[row] for row in others}) > 1:
            left_out |= dict.fromkeys(others, "copies in several classes")
        else:
            kept = min(others, key=lambda row: (splits[row] != "val", row))
            left_out |= {row: "copy of another photo" for row in others if row != kept}
    return left_out


def stratified_split(
    labels: Sequence[str], digests: Sequence[bytes], fraction: float, *, seed: int, key: str
) -> tuple[list[int], list[int]]:
    """Return the rows that stay and the rows held out: the same fraction of each class.

    Of n photos of a class, round(n × fraction) are held out, but at least one and never all. They
    are those whose digest, hashed together with seed and key, comes first. So photos that are added
    later move only the few that are near the border.

    Args:
        labels: class name of each row.
        digests: SHA-256 of each row, all different.
        fraction: in (0, 1).
        seed: of the draw.
        key: name of the param that holds the fraction; another key is another draw.

    Raises:
        ArchiveError: a class has a single photo.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    stay, held_out = [], []
    salt = f"{seed} {key} ".encode()
    for label, rows in sorted(rows_of.items()):
        if len(rows) < 2:  # noqa: PLR2004
            raise ArchiveError(
                f"class {label!r}: {len(rows)} usable photo left to split by {key} {fraction}; "
                "allowed: two or more in each class, or three if the test set is split off too"
            )
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        drawn = sorted(rows, key=lambda row: hashlib.sha256(salt + digests[row]).digest())
        held_out += drawn[:count]
        stay += drawn[count:]
    return sorted(stay), sorted(held_out)
