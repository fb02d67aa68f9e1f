"""Find copies to leave out, and divide the groups of photos into splits."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.chunks import Failure
from fieldguide.prepare.groups import Group
from fieldguide.prepare.left_out import DUPLICATE

_BORDER = 64  # groups on each side of the border that may be exchanged
_EXCHANGES = 100
_NEVER = 10**9  # photos: more than any distance from the goal


def find_copies(
    digests: Sequence[bytes], labels: Sequence[str], splits: Sequence[str]
) -> dict[int, Failure]:
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
    left_out: dict[int, Failure] = {}
    for rows in groups.values():
        test = [row for row in rows if splits[row] == "test"]
        others = [row for row in rows if splits[row] != "test"]
        if test:
            why = Failure(DUPLICATE, "copy of a test photo", test[0])
            left_out |= dict.fromkeys(others, why)
        elif len({labels[row] for row in others}) > 1:
            for row in others:
                other = next(other for other in others if labels[other] != labels[row])
                left_out[row] = Failure(DUPLICATE, "copies in several classes", other)
        else:
            kept = min(others, key=lambda row: (splits[row] != "val", row))
            why = Failure(DUPLICATE, "copy of another photo", kept)
            left_out |= {row: why for row in others if row != kept}
    return left_out


class Draw(NamedTuple):
    """Groups that were divided into two splits."""

    stay: list[Group]
    held_out: list[Group]
    wanted: dict[str, int]  # photos to hold out, of each class that has two groups or more


class _Class(NamedTuple):
    """What is to be held out of one class."""

    photos: int
    wanted: int  # photos to hold out
    goal: int  # the same, but no more than leaves something for the other splits
    groups: int  # number of groups that may be held out


def draw_groups(
    groups: Sequence[Group],
    labels: Sequence[str],
    fraction: float,
    *,
    later: float = 0,
    seed: int,
    key: str,
) -> Draw:
    """Hold out whole groups, so that each class loses the same fraction of its photos.

    Of n photos of a class, round(n × fraction) are wanted, but at least one and never all. Groups
    are taken in the order of their keys, hashed together with seed and `key`, if that brings the
    numbers of photos nearer to what is wanted; a group may have several classes. So groups that
    are added later move only the few that are near the border. Finally, groups near the border
    are exchanged, until no exchange brings the numbers nearer.

    A group of each class stays, two if another draw follows and the class has three. A class of one
    group stays.

    Args:
        groups: to divide.
        labels: class name of each row.
        fraction: in (0, 1).
        later: fraction of the rest that another draw will hold out; 0: none follows.
        seed: of the draw.
        key: name of the param that holds the fraction; another key is another draw.

    Raises:
        ArchiveError: a class has a single photo.
    """
    classes = _classes(groups, labels, fraction, later)
    for label, found in sorted(classes.items()):
        if found.photos < 2:  # noqa: PLR2004
            raise ArchiveError(
                f"class {label!r}: {found.photos} usable photo left to split by {key} {fraction}; "
                "allowed: two or more in each class, or three if the test set is split off too; "
                "see data.min_photos"
            )
    salt = f"{seed} {key} ".encode()
    order = sorted(groups, key=lambda group: hashlib.sha256(salt + group.key).digest())
    taken: set[int] = set()  # places in `order`
    held = {label: _Held(0, 0) for label in classes}
    for place, group in enumerate(order):
        own = Counter(labels[row] for row in group.rows)
        if any(held[label].groups == classes[label].groups for label in own):
            continue
        before = sum(abs(held[label].photos - classes[label].goal) for label in own)
        after = sum(abs(held[label].photos + n - classes[label].goal) for label, n in own.items())
        if after < before:
            taken.add(place)
            for label, n in own.items():
                held[label] = _Held(held[label].photos + n, held[label].groups + 1)
    wrong = {label for label, one in classes.items() if held[label].photos != one.goal}
    places_of: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(order):
        for label in wrong.intersection(labels[row] for row in group.rows):
            places_of[label].append(place)
    for label in sorted(wrong):
        _exchange(places_of[label], order, taken=taken, held=held, labels=labels, classes=classes)
    return Draw(
        [group for place, group in enumerate(order) if place not in taken],
        [group for place, group in enumerate(order) if place in taken],
        {label: one.wanted for label, one in classes.items() if one.groups},
    )


class _Held(NamedTuple):
    """What is held out of one class."""

    photos: int
    groups: int


def _classes(
    groups: Sequence[Group], labels: Sequence[str], fraction: float, later: float
) -> dict[str, _Class]:
    photos: Counter[str] = Counter()
    number: Counter[str] = Counter()  # of groups
    largest: Counter[str] = Counter()  # photos of the class in its largest group
    for group in groups:
        for label, count in Counter(labels[row] for row in group.rows).items():
            photos[label] += count
            number[label] += 1
            largest[label] = max(largest[label], count)
    classes = {}
    for label, n in photos.items():
        wanted = goal = min(max(round(n * fraction), 1), n - 1)
        stay = 2 if later and number[label] > 2 else 1  # noqa: PLR2004
        # If the largest group must stay, the splits share the other ones.
        both, others = wanted + round((n - wanted) * later), n - largest[label]
        if both > others:
            goal = max(round(others * wanted / both), 1)
        may_leave = number[label] - stay
        classes[label] = _Class(n, wanted, goal if may_leave else 0, may_leave)
    return classes


def _exchange(
    near: Sequence[int],
    order: Sequence[Group],
    *,
    taken: set[int],
    held: dict[str, _Held],
    labels: Sequence[str],
    classes: Mapping[str, _Class],
) -> None:
    """Let one or two groups of a class change sides while that brings the numbers nearer.

    Args:
        near: places of the groups of the class; those near the border may change sides.
        order: groups in the order of the draw.
        taken: places of the groups that are held out; changed here.
        held: what they hold of each class; changed here.
        labels: class name of each row.
        classes: what is wanted of each class.
    """
    places = [k for k in near if k in taken][-_BORDER:]
    places += [k for k in near if k not in taken][:_BORDER]
    names = sorted({labels[row] for k in places for row in order[k].rows})
    index = {name: k for k, name in enumerate(names)}
    goal, may_leave = (
        np.array([getattr(classes[name], what) for name in names]) for what in ("goal", "groups")
    )

    def counts(place: int) -> npt.NDArray[np.int64]:
        """Return the photos of each class, and whether there are any: (2, K)."""
        photos = np.bincount(
            [index[labels[row]] for row in order[place].rows], minlength=len(names)
        )
        return np.stack([photos, photos > 0])

    def cost(now: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the distance from the goal; a class without a group on one side costs most."""
        photos, groups = now[..., 0, :], now[..., 1, :]
        lacks = ((photos == 0) & (goal > 0)) | (groups > may_leave)
        return np.asarray((np.abs(photos - goal) + lacks * _NEVER).sum(axis=-1))

    now = np.array([held[name] for name in names], np.int64).T  # (2, K)
    changes = np.array([counts(place) * (-1 if place in taken else 1) for place in places])
    best = int(cost(now))
    for _ in range(_EXCHANGES):
        move: set[int] = set()  # one or two groups that change sides
        for first in range(len(places)):
            costs = cost(now + changes[first] + changes[first:])
            costs[0] = cost(now + changes[first])
            second = int(costs.argmin())
            if costs[second] < best:
                best, move = int(costs[second]), {first, first + second}
        if not move:
            break
        for k in move:
            now = now + changes[k]
            changes[k] = -changes[k]
            taken ^= {places[k]}
    held |= {name: _Held(*found) for name, found in zip(names, now.T.tolist(), strict=True)}
