"""Who goes where: copies found and left out, then a stratified split per class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from fieldguide.core.errors import ArchiveError


def find_copies(
    digests: Sequence[bytes], labels: Sequence[str], parts: Sequence[str]
) -> dict[int, str]:
    """Rows to leave out so that no photo is on two sides of a split, each with the reason.

    The test set is never touched. Of identical photos elsewhere the first of the best part stays
    ("test" before "val" before "train"); none stays in training where they carry different labels.

    Args:
        digests: SHA-256 of each photo's bytes.
        labels: class name of each photo.
        parts: "train", "val" or "test" of each photo.
    """
    first: dict[bytes, int] = {}
    groups: dict[bytes, list[int]] = {}  # of photos that are there more than once
    for row, digest in enumerate(digests):
        if first.setdefault(digest, row) != row:
            groups.setdefault(digest, [first[digest]]).append(row)
    left_out: dict[int, str] = {}
    for rows in groups.values():
        chosen = [row for row in rows if parts[row] != "test"]
        if len(chosen) < len(rows):
            left_out |= dict.fromkeys(chosen, "copy of a test photo")
        elif len({labels[row] for row in chosen}) > 1:
            left_out |= dict.fromkeys(chosen, "copies in several classes")
        elif len(chosen) > 1:
            kept = min(chosen, key=lambda row: (parts[row] != "val", row))
            left_out |= {row: "copy of another photo" for row in chosen if row != kept}
    return left_out


def stratified_split(
    labels: Sequence[str], digests: Sequence[bytes], fraction: float, *, seed: int, key: str
) -> tuple[list[int], list[int]]:
    """Rows that stay and rows that are held out, for each class by the same fraction.

    A class of n photos gives round(n × fraction) of them, at least one and never all: those whose
    digests, hashed together with seed and key, come first. So a photo's place in the draw never
    changes, and photos that are added move only the few that are next to the border.

    Args:
        labels: class name of each row.
        digests: SHA-256 of each row, all different.
        fraction: in (0, 1).
        seed: of the draw.
        key: the parameter that holds the fraction; another key is another draw.

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
                "allowed: two or more a class, and one more where the test set is split off too"
            )
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        drawn = sorted(rows, key=lambda row: hashlib.sha256(salt + digests[row]).digest())
        held_out += drawn[:count]
        stay += drawn[count:]
    return sorted(stay), sorted(held_out)
