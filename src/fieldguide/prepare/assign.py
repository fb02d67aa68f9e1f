"""Decide the split of each photo, or why it is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.output import counted, listed
from fieldguide.core.params import DataParams
from fieldguide.core.store import SPLITS
from fieldguide.prepare.bursts import Taken, burst_pairs
from fieldguide.prepare.chunks import Failure
from fieldguide.prepare.components import connected
from fieldguide.prepare.groups import Group, make_groups
from fieldguide.prepare.layout import Photo
from fieldguide.prepare.left_out import NEAR_COPY, RARE, STRADDLING
from fieldguide.prepare.looks import Looks
from fieldguide.prepare.near_copies import contradictions, near_copies
from fieldguide.prepare.splits import draw_groups, find_copies

OTHER = "other"  # the class of all rare classes, for data.rare: merge
# Near-copies under two classes: from this number and share of a class on there is a warning.
_MANY, _SHARE = 10, 0.1
Pairs = list[tuple[int, int]]


class Assigned(NamedTuple):
    """Where each photo goes."""

    photos: list[Photo]  # by row, with the classes of the store
    rows_of: dict[str, list[int]]  # of each split, sorted
    reasons: dict[int, Failure]  # of the rows that are in no split
    groups: list[Group]  # of two photos or more
    near_copies: set[int]  # rows of photos in a split that have a near-copy there too
    warnings: list[str]


class _Assignment:
    """Photos that are still to be assigned, and why others are not."""

    def __init__(
        self, photos: Sequence[Photo], digests: Sequence[bytes], failures: dict[int, Failure]
    ) -> None:
        self.photos, self.digests = list(photos), list(digests)
        self.reasons = dict(failures)
        self.warnings: list[str] = []

    def leave_out(self, why: Mapping[int, Failure]) -> None:
        self.reasons |= why
        for row in why:
            self.digests[row] = b""

    @property
    def rows(self) -> list[int]:
        """Rows that are not left out."""
        return [row for row, digest in enumerate(self.digests) if digest]

    def labels(self, rows: Sequence[int]) -> set[str]:
        return {self.photos[row].label for row in rows}

    def by_split(self, rows: Sequence[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            found[self.photos[row].split].append(row)
        return found


def assign(
    photos: Sequence[Photo],
    digests: Sequence[bytes],
    failures: dict[int, Failure],
    taken: Mapping[int, Taken],
    params: DataParams,
    *,
    given: Sequence[tuple[str, ...]],
    looks: Looks,
) -> Assigned:
    """Leave out copies and rare classes, join groups, and draw the splits that are missing.

    Args:
        photos: by row; their splits are those of the archive or the label table.
        digests: SHA-256 by row; empty for a photo that cannot be used.
        failures: why, by row.
        taken: time of the photos that have one.
        params: of the stage.
        given: groups by row, from `given_groups`.
        looks: of all photos, for `data.near_copies`.

    Raises:
        ArchiveError: a class or a split has no photo left, or too few to be divided.
    """
    todo = _Assignment(photos, digests, failures)
    labels, splits = [photo.label for photo in photos], [photo.split for photo in photos]
    todo.leave_out(find_copies(digests, labels, splits))
    near = near_copies(looks, todo.rows) if params.near_copies else []
    alike = connected(len(photos), near)
    _leave_out_near_copies(todo, alike, looks)
    bursts: Pairs = []
    if params.burst_seconds > 0:
        bursts = burst_pairs(photos, taken, params.burst_seconds)
        lacking = sum(row not in taken for row in todo.rows)
        if lacking:
            todo.warnings.append(
                f"{lacking:,} of {counted(len(todo.rows), 'photo')} have no EXIF time, which "
                "data.burst_seconds needs"
            )
    groups = make_groups(todo.photos, todo.digests, given, near + bursts)
    _leave_out_straddling(todo, groups)
    _check_classes(todo, _leave_out_rare(todo, params))
    kept = ([row for row in group.rows if todo.digests[row]] for group in groups)
    groups = [group._replace(rows=rows) for group, rows in zip(groups, kept, strict=True) if rows]
    rows_of = _draw(todo, groups, params)
    still = set(todo.rows)
    return Assigned(
        todo.photos,
        rows_of,
        todo.reasons,
        [group for group in groups if len(group.rows) > 1],
        {row for rows in alike if len(still.intersection(rows)) > 1 for row in rows} & still,
        todo.warnings,
    )


def _leave_out_near_copies(todo: _Assignment, alike: Sequence[list[int]], looks: Looks) -> None:
    """Leave out photos that look the same where `find_copies` leaves out copies.

    Of a group with several classes only the photos leave that look like one of another class.

    Args:
        todo: the assignment.
        alike: rows of each group of photos that look the same.
        looks: of all photos.
    """
    _leave_out_copies_of(todo, alike, "test", "test")
    photos = todo.photos
    before = Counter(photos[row].label for row in todo.rows)
    lost: dict[str, list[str]] = defaultdict(list)
    for group in alike:
        rows = [row for row in group if todo.digests[row] and photos[row].split != "test"]
        if len(todo.labels(rows)) > 1:
            pairs = contradictions(looks, rows, [photos[row].label for row in rows])
            for row, other in pairs.items():
                like = f"looks like {photos[other].member.source} of class {photos[other].label}"
                todo.leave_out({row: Failure(NEAR_COPY, like, other)})
                lost[photos[row].label].append(f"{photos[row].member.source} {like}")
    for label, found in sorted(lost.items()):
        if len(found) >= max(_MANY, _SHARE * before[label]):
            todo.warnings.append(
                f"data.near_copies: {len(found):,} of {before[label]:,} photos of class {label!r} "
                f"are left out, such as {found[0]}; if these are different photos, for example of "
                "one product or one camera, set data.near_copies: false"
            )
    _leave_out_copies_of(todo, alike, "val", "validation")


def _leave_out_copies_of(
    todo: _Assignment, alike: Sequence[list[int]], kept: str, name: str
) -> None:
    for rows in alike:
        stay, leave = _divided(todo, rows, kept)
        if stay:
            source = todo.photos[stay[0]].member.source
            like = f"looks like the {name} photo {source}, or like a photo that does"
            todo.leave_out(dict.fromkeys(leave, Failure(NEAR_COPY, like, stay[0])))


def _divided(todo: _Assignment, rows: Sequence[int], kept: str) -> tuple[list[int], list[int]]:
    """Return the rows of a group in a split of the archive, and those that leave because of them.

    Args:
        todo: the assignment.
        rows: of the group.
        kept: "test", whose photos stay, or "val", whose photos stay instead of those of train.
    """
    split_of = todo.by_split([row for row in rows if todo.digests[row]])
    stay = split_of[kept]
    leave = split_of["train"] + (split_of["val"] if kept == "test" else [])
    return stay, leave if stay else []


def _leave_out_straddling(todo: _Assignment, groups: Sequence[Group]) -> None:
    """Leave out photos whose group has a test photo, or a validation photo, of the archive."""
    lost, names = 0, []
    for kept in ("test", "val"):
        for group in groups:
            _, leave = _divided(todo, group.rows, kept)
            if leave:
                detail = f"its group {group.name} is in the archive's {kept} split"
                todo.leave_out(dict.fromkeys(leave, Failure(STRADDLING, detail)))
                lost += len(leave)
                names.append(group.name)
    if names:
        todo.warnings.append(
            f"groups that are in two splits of the archive: {len(names):,} ({listed(names)}); "
            f"photos that training or validation loses: {lost:,}"
        )


def _leave_out_rare(todo: _Assignment, params: DataParams) -> set[str]:
    """Leave out classes with fewer photos than `data.min_photos`, or make them one class.

    Returns:
        The rare classes. With the smallest `data.min_photos` there are none, so that a class
        without a photo that can be used is an error.
    """
    counts = Counter(todo.photos[row].label for row in todo.rows)
    rare = {photo.label for photo in todo.photos if counts[photo.label] < params.min_photos}
    if not rare or params.min_photos == 1:
        return set()
    shown = listed([f"{label} ({counts[label]})" for label in sorted(rare)])
    rows = [row for row in todo.rows if todo.photos[row].label in rare]
    what = f"classes with fewer than data.min_photos {params.min_photos} photos"
    if params.rare == "merge":
        known = sorted(counts.keys() - rare)
        other = next((label for label in known if label.casefold() == OTHER), OTHER)
        for row in rows:
            todo.photos[row] = todo.photos[row]._replace(label=other)
        into = "now belong to the class" if other in known else "are now one class,"
        todo.warnings.append(f"{what} {into} {other!r}: {shown}")
    else:
        todo.leave_out(
            {
                row: Failure(
                    RARE, f"{counted(counts[todo.photos[row].label], 'photo')} of the class"
                )
                for row in rows
            }
        )
        todo.warnings.append(f"{what} are left out: {shown}")
    left = todo.labels(todo.rows)
    if len(left) < 2:  # noqa: PLR2004
        reasons = Counter(why.reason for why in todo.reasons.values() if why.reason != RARE)
        gone = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
        raise ArchiveError(
            f"data.min_photos: {params.min_photos} leaves fewer than two classes; the two largest "
            f"have {', '.join(str(count) for _, count in counts.most_common(2))} photos"
            + (f"; other photos left out: {gone}" if gone else "")
        )
    return rare


def _check_classes(todo: _Assignment, rare: set[str]) -> None:
    """Refuse a class or a split of the archive without a photo that can be used."""
    emptied = (
        {photo.label for photo in todo.photos}
        - rare
        - todo.labels(todo.by_split(todo.rows)["train"])
    )
    if emptied:
        label = min(emptied)
        gone = [row for row in todo.reasons if todo.photos[row].label == label]
        what = f"training has no usable photo of class {label!r} left"
        raise ArchiveError(_nothing_left(what, todo, gone))
    for split in ("test", "val"):
        given = [row for row, photo in enumerate(todo.photos) if photo.split == split]
        if given and not todo.by_split(todo.rows)[split]:
            raise ArchiveError(_nothing_left(f"{split} has no usable photo left", todo, given))


def _nothing_left(what: str, todo: _Assignment, rows: Sequence[int]) -> str:
    if not rows:  # the rare classes that became one class have only test photos
        return f"{what}; see data.min_photos and data.rare"
    counts = Counter(todo.reasons[row].reason for row in rows)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
    first = min(rows, key=lambda row: todo.photos[row].member.source)
    return (
        f"{what}; left out: {reasons}, such as "
        f"{todo.photos[first].member.source} ({todo.reasons[first].detail}); see data.min_size, "
        "data.max_unreadable and data.near_copies"
    )


def _draw(todo: _Assignment, groups: Sequence[Group], params: DataParams) -> dict[str, list[int]]:
    """Draw the test and the validation split that the archive does not have."""
    labels = [photo.label for photo in todo.photos]
    split_of = todo.by_split(todo.rows)
    pool = [group for group in groups if todo.photos[group.rows[0]].split == "train"]
    _warn_of_large_groups(todo, pool)
    undivided: set[str] = set()  # classes that were named
    missing = [split for split in ("test", "val") if not split_of[split]]
    for split in missing:
        key, fraction = f"data.{split}_fraction", getattr(params, f"{split}_fraction")
        later = params.val_fraction if missing == ["test", "val"] and split == "test" else 0
        draw = draw_groups(pool, labels, fraction, later=later, seed=params.seed, key=key)
        single = {
            label: group.name
            for group in pool
            for label in sorted(todo.labels(group.rows) - draw.wanted.keys() - undivided)
        }
        if single:
            undivided |= single.keys()
            shown = listed([f"{label} ({name})" for label, name in single.items()])
            todo.warnings.append(
                f"classes with only one group, which {key} cannot divide, so that all their photos "
                f"stay in training: {shown}"
            )
        pool = draw.stay
        split_of[split] = sorted(row for group in draw.held_out for row in group.rows)
        if not split_of[split]:
            raise ArchiveError(
                f"{key}: no photo can be held out, because each class has only one group left, "
                f"such as {pool[0].name}; allowed: two groups or more of a class, or three if the "
                "test set is split off too; see data.group and data.near_copies"
            )
        _warn_of_deviations(todo, split_of[split], draw.wanted, key)
    split_of["train"] = sorted(row for group in pool for row in group.rows)
    return {split: split_of[split] for split in SPLITS}


def _warn_of_large_groups(todo: _Assignment, groups: Sequence[Group]) -> None:
    """Name groups of two photos or more that have half of a class, but not all of it."""
    photos = Counter(todo.photos[row].label for group in groups for row in group.rows)
    found = []
    for group in groups:
        if len(group.rows) > 1:
            own = Counter(todo.photos[row].label for row in group.rows)
            found += [
                f"{group.name} ({count:,} of {photos[label]:,} photos of {label})"
                for label, count in sorted(own.items())
                if 1 < count < photos[label] <= 2 * count
            ]
    if found:
        todo.warnings.append(f"groups with half of a class or more: {listed(found)}")


def _warn_of_deviations(
    todo: _Assignment, rows: Sequence[int], wanted: Mapping[str, int], key: str
) -> None:
    """Name the classes of which whole groups are more or fewer photos than the fraction."""
    found = Counter(todo.photos[row].label for row in rows)
    off = sorted(
        (label for label in wanted if found[label] != wanted[label]),
        key=lambda label: (-abs(found[label] - wanted[label]), label),
    )
    if off:
        shown = listed([f"{label} {found[label]:,} for {wanted[label]:,}" for label in off])
        todo.warnings.append(
            f"{key}: whole groups are not the exact fraction of {len(off):,} of {len(wanted):,} "
            f"classes; photos: {shown}"
        )
