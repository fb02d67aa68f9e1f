"""Find copies to leave out, and divide the groups of photos into splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.groups import Group

_BORDER = 64  # groups on each side of the border that may be exchanged
_EXCHANGES = 100


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


class Draw(NamedTuple):
    """Groups that were divided into two splits."""

    stay: list[Group]
    held_out: list[Group]
    wanted: dict[str, int]  # photos to hold out, of each class that has two groups or more


def draw_groups(
    groups: Sequence[Group], labels: Sequence[str], fraction: float, *, seed: int, key: str
) -> Draw:
    """Hold out whole groups, so that each class loses the same fraction of its photos.

    Of n photos of a class, round(n × fraction) are wanted, but at least one and never all. Groups
    are taken in the order of their keys, hashed together with seed and `key`, if that brings the
    numbers of photos nearer to what is wanted; a group may have several classes. So groups that
    are added later move only the few that are near the border. At last groups near the border
    are exchanged, until no exchange brings the numbers nearer.

    The training set keeps a group of each class. A class of one group stays there.

    Args:
        groups: to divide.
        labels: class name of each row.
        fraction: in (0, 1).
        seed: of the draw.
        key: name of the param that holds the fraction; another key is another draw.

    Raises:
        ArchiveError: a class has a single photo.
    """
    photos = Counter(labels[row] for group in groups for row in group.rows)
    groups_of = Counter(label for group in groups for label in {labels[row] for row in group.rows})
    for label, count in sorted(photos.items()):
        if count < 2:  # noqa: PLR2004
            raise ArchiveError(
                f"class {label!r}: {count} usable photo left to split by {key} {fraction}; "
                "allowed: two or more in each class, or three if the test set is split off too; "
                "see data.min_photos"
            )
    goal = {
        label: min(max(round(n * fraction), 1), n - 1) if groups_of[label] > 1 else 0
        for label, n in photos.items()
    }
    salt = f"{seed} {key} ".encode()
    order = sorted(groups, key=lambda group: hashlib.sha256(salt + group.key).digest())
    taken: set[int] = set()  # places in `order`
    held: Counter[str] = Counter()
    for place, group in enumerate(order):
        own = Counter(labels[row] for row in group.rows)
        if any(held[label] + n == photos[label] for label, n in own.items()):
            continue
        before = sum(abs(held[label] - goal[label]) for label in own)
        after = sum(abs(held[label] + n - goal[label]) for label, n in own.items())
        if after < before:
            taken.add(place)
            held += own
    if any(held[label] != n for label, n in goal.items()):
        _exchange(order, taken, labels, photos, goal)
    return Draw(
        [group for place, group in enumerate(order) if place not in taken],
        [group for place, group in enumerate(order) if place in taken],
        {label: n for label, n in goal.items() if n},
    )


def _exchange(
    order: Sequence[Group],
    taken: set[int],
    labels: Sequence[str],
    photos: Mapping[str, int],
    wanted: Mapping[str, int],
) -> None:
    """Add, remove or exchange groups near the border while that brings the numbers nearer.

    Args:
        order: groups in the order of the draw.
        taken: places of the groups that are held out; changed here.
        labels: class name of each row.
        photos: of each class.
        wanted: photos of each class to hold out.
    """
    names = sorted(photos)
    index = {name: k for k, name in enumerate(names)}
    total, goal = (np.array([numbers[name] for name in names]) for numbers in (photos, wanted))

    def counts(place: int) -> npt.NDArray[np.int64]:
        found = [index[labels[row]] for row in order[place].rows]
        return np.bincount(found, minlength=len(names))

    def cost(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the distance from the goal; a class without a photo on one side costs most."""
        lacks = ((numbers == 0) & (goal > 0)) | (numbers == total)
        return np.asarray((np.abs(numbers - goal) + lacks * total.sum()).sum(axis=-1))

    held = sum((counts(place) for place in taken), np.zeros(len(names), np.int64))
    wrong = {name for name, n in zip(names, held - goal, strict=True) if n}
    near = [k for k, group in enumerate(order) if any(labels[row] in wrong for row in group.rows)]
    places = [k for k in near if k in taken][-_BORDER:]
    places += [k for k in near if k not in taken][:_BORDER]
    changes = np.array([counts(place) * (-1 if place in taken else 1) for place in places])
    best = int(cost(held))
    for _ in range(_EXCHANGES):
        move: set[int] = set()  # one or two groups that change sides
        for first in range(len(places)):
            costs = cost(held + changes[first] + changes[first:])
            costs[0] = cost(held + changes[first])
            second = int(costs.argmin())
            if costs[second] < best:
                best, move = int(costs[second]), {first, first + second}
        if not move:
            return
        for k in move:
            held = held + changes[k]
            changes[k] = -changes[k]
            taken ^= {places[k]}
