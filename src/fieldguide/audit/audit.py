"""Audit a prepared store: wrong labels, copies in two classes, and photos of poor quality."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.audit.confident import doubt_labels
from fieldguide.audit.originals import Originals, judge_sizes, read_originals
from fieldguide.audit.out_of_fold import OutOfFold, draw_folds, out_of_fold
from fieldguide.audit.photo_quality import judge, measure
from fieldguide.audit.suspect import COLUMNS, COPY, LABEL, Suspect, worst_first
from fieldguide.core.errors import ArchiveError, StoreError
from fieldguide.core.files import write_csv
from fieldguide.core.output import counted, listed
from fieldguide.core.params import DataParams
from fieldguide.core.store import Store
from fieldguide.prepare.left_out import DUPLICATE, NEAR_COPY

FOLDS = 5
LEFT_OUT = "left out"


class Confusion(NamedTuple):
    """A class, and another one that is suggested for some of its photos."""

    label: str
    other: str
    photos: int
    share: float  # of the audited photos with this label, in [0, 1]


class Audit(NamedTuple):
    """What an audit found."""

    suspects: list[Suspect]  # worst first
    confusions: list[Confusion]  # most photos first
    photos: dict[str, int]  # audited photos by split
    notes: list[str]  # what was not checked, and why
    originals: Originals


def read_groups(store: Store, sources: Sequence[str]) -> list[str]:
    """Return the group of each photo; a photo without a group has its own name.

    Raises:
        StoreError: groups.csv cannot be read.
    """
    group_of = dict(_read_csv(store, "groups.csv", "file", "group"))
    return [group_of.get(source, source) for source in sources]


def audit(
    store: Store,
    features: npt.NDArray[np.float32],
    data: DataParams,
    *,
    splits: Sequence[str],
    audited: Sequence[str],
    seed: int = 0,
) -> Audit:
    """Find suspects.

    Args:
        store: prepared photos.
        features: (N, F), of the photos of `splits`.
        data: section `data`, for the archive.
        splits: splits that the linear models learn from.
        audited: those of `splits` whose photos may be suspects.
        seed: of the folds.

    Raises:
        StoreError: a file of the store cannot be read, or the archive lacks photos of the store.
    """
    photos = store.split(*splits)
    split_of = np.repeat(splits, [len(store.split(name)) for name in splits]).tolist()
    label_of = [store.classes[label] for label in photos.labels.tolist()]
    row_of = {file: row for row, file in enumerate(photos.sources) if split_of[row] in audited}

    copies = list(_copies(store))
    pictured = {file for copy in copies for file in (copy.file, copy.other)}
    originals, notes = _read_originals(data, row_of.keys(), pictured)
    sizes = {row_of[file]: size for file, size in originals.sizes.items()}

    folds = draw_folds(photos.labels, read_groups(store, photos.sources), folds=FOLDS, seed=seed)
    predicted = out_of_fold(features, photos.labels, folds, classes=len(store.classes))
    small = np.unique(photos.labels[~predicted.known]).tolist()
    if small:
        names = listed([store.classes[label] for label in small])
        notes.append(
            f"labels of {names}: a class needs at least {FOLDS} photos, of which no two are in "
            "one group"
        )

    suspects = [
        Suspect(photos.sources[row], split_of[row], label_of[row], suggested, kind, score, detail)
        for kind, row, score, detail, suggested in (
            *_wrong_labels(predicted, photos.labels, store.classes),
            *((*doubt, "") for doubt in (*judge(measure(photos)), *judge_sizes(sizes))),
        )
        if split_of[row] in audited
    ]
    return Audit(
        worst_first([*copies, *suspects]),
        _confusions(suspects, Counter(label_of[row] for row in row_of.values())),
        {name: split_of.count(name) for name in audited},
        notes,
        originals,
    )


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write all suspects as a CSV file, in their order."""
    rows = ((*one[:5], f"{one.score:.4f}", one.detail, one.other) for one in suspects)
    write_csv(path, COLUMNS, rows)


def _wrong_labels(
    predicted: OutOfFold, labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> Iterator[tuple[str, int, float, str, str]]:
    """Yield kind, row, score, detail and suggested class of labels that are probably wrong."""
    rows = predicted.known.nonzero()[0]
    doubts = doubt_labels(predicted.probabilities[rows], labels[rows])
    for place in doubts.doubtful.nonzero()[0].tolist():
        other, own = doubts.suggested_probability[place], doubts.own_probability[place]
        suggested = classes[doubts.suggested[place]]
        detail = f"{suggested} {other:.0%}, label {own:.0%}"
        yield LABEL, int(rows[place]), float(doubts.score[place]), detail, suggested


def _copies(store: Store) -> Iterator[Suspect]:
    """Yield the photos that `prepare` left out as copies of a photo of another class."""
    columns = ("file", "class", "reason", "other_file", "other_class")
    lines = _read_csv(store, "left_out.csv", *columns)
    near_copies = {file for file, _, reason, _, _ in lines if reason == NEAR_COPY}
    for file, label, reason, other, other_label in lines:
        if not other or label == other_label:
            continue
        if reason == DUPLICATE:
            detail = f"the same file as {other} of class {other_label}"
        elif other in near_copies:
            detail = f"looks like {other} of class {other_label}"
        else:  # it may look only like a photo that looks like `other`, a given test photo
            continue
        yield Suspect(file, LEFT_OUT, label, other_label, COPY, 1.0, detail, other)


def _read_originals(
    data: DataParams, measured: Collection[str], decoded: Collection[str]
) -> tuple[Originals, list[str]]:
    """Read the archive; notes say what could not be read."""
    try:
        originals = read_originals(data, measured, decoded)
    except ArchiveError as err:
        return Originals({}, {}, []), [f"shape and size, and copies have no pictures ({err})"]
    if not originals.unreadable:
        return originals, []
    number, first = counted(len(originals.unreadable), "photo"), originals.unreadable[0]
    note = f"shape and size of {number} that the archive has damaged, such as {first}"
    return originals, [f"{note}; copies among them have no pictures"]


def _confusions(suspects: Sequence[Suspect], photos: Counter[str]) -> list[Confusion]:
    """Count the photos whose label is doubtful, by label and suggested class.

    Args:
        suspects: of all kinds.
        photos: audited photos by label.
    """
    pairs = Counter((one.label, one.suggested) for one in suspects if one.kind == LABEL)
    found = [
        Confusion(label, other, count, count / photos[label])
        for (label, other), count in pairs.items()
    ]
    return sorted(found, key=lambda one: (-one.photos, one.label, one.other))


def _read_csv(store: Store, name: str, *columns: str) -> list[list[str]]:
    path = store.folder / name
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [[line[column] for column in columns] for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error) as err:
        raise StoreError(f"{path}: cannot be read ({err!r}); run `dvc repro prepare`") from err
