"""Audit a prepared store: wrong labels, copies in two classes, and photos of poor quality."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.audit.confident import LabelDoubts, doubt_labels
from fieldguide.audit.originals import Originals, judge_sizes, read_originals
from fieldguide.audit.out_of_fold import draw_folds, out_of_fold
from fieldguide.audit.photo_quality import judge, measure
from fieldguide.audit.suspect import COPY, LABEL, Suspect, worst_first
from fieldguide.core.errors import ArchiveError, StoreError
from fieldguide.core.files import write_csv
from fieldguide.core.output import listed
from fieldguide.core.params import DataParams
from fieldguide.core.store import Store
from fieldguide.prepare.left_out import DUPLICATE, NEAR_COPY

FOLDS = 5
LEFT_OUT = "left out"
_LIKE = re.compile(r"looks like (?P<file>.+) of class (?P<label>.+)")  # of `prepare/assign.py`
_COPIES = "copies in several classes"  # of `prepare/splits.py`


class Confusion(NamedTuple):
    """A class whose photos often look like those of another class."""

    label: str
    other: str
    photos: float  # estimated number of photos with this label that are of the other class
    share: float  # of the photos with this label, in [0, 1]


class Audit(NamedTuple):
    """What an audit found."""

    suspects: list[Suspect]  # worst first
    confusions: list[Confusion]  # most photos first
    photos: dict[str, int]  # audited photos by split
    notes: list[str]  # what could not be checked
    originals: Originals


def read_groups(store: Store, sources: Sequence[str]) -> list[str]:
    """Return the group of each photo; a photo without a group has its own name.

    Raises:
        StoreError: groups.csv cannot be read.
    """
    lines = _read_csv(store.folder / "groups.csv")
    group_of = {line["file"]: line["group"] for line in lines}
    return [group_of.get(source, source) for source in sources]


def audit(
    store: Store,
    features: npt.NDArray[np.float32],
    data: DataParams,
    *,
    splits: Sequence[str],
    shown: Sequence[str],
    seed: int = 0,
) -> Audit:
    """Find suspects.

    Args:
        store: prepared photos.
        features: (N, F), of the photos of `splits`.
        data: section `data`, for the archive.
        splits: splits that the linear models learn from.
        shown: those of `splits` whose photos may be suspects.
        seed: of the folds.

    Raises:
        StoreError: a file of the store cannot be read.
    """
    split = store.split(*splits)
    split_of = np.repeat(splits, [len(store.split(name)) for name in splits]).tolist()
    row_of = {source: row for row, source in enumerate(split.sources) if split_of[row] in shown}

    def suspect(kind: str, row: int, score: float, detail: str, suggested: str = "") -> Suspect:
        label = store.classes[split.labels[row]]
        return Suspect(split.sources[row], split_of[row], label, suggested, kind, score, detail)

    folds = draw_folds(split.labels, read_groups(store, split.sources), folds=FOLDS, seed=seed)
    found = out_of_fold(features, split.labels, folds, classes=len(store.classes))
    known = found.known.nonzero()[0]
    doubts = doubt_labels(found.probabilities[known], split.labels[known])
    wrong = [suspect(*one) for one in _wrong_labels(doubts, known, store.classes)]
    poor = [suspect(*one) for one in judge(measure(split))]

    copies = list(_copies(store.folder / "left_out.csv"))
    pictured = {file for one in copies for file in files_of(one)}
    originals, notes = _originals(data, row_of.keys(), pictured)
    odd = [
        suspect(kind, row_of[file], score, detail)
        for kind, file, score, detail in judge_sizes(originals.sizes)
    ]
    unknown = np.unique(split.labels[~found.known]).tolist()
    if unknown:
        names = listed([store.classes[k] for k in unknown])
        notes.append(f"Labels of {names}: not checked, because all photos of the class are a group")
    return Audit(
        worst_first([*copies, *(one for one in (*wrong, *poor, *odd) if one.split in shown)]),
        _confusions(doubts, store.classes),
        {name: split_of.count(name) for name in shown},
        notes,
        originals,
    )


def files_of(suspect: Suspect) -> list[str]:
    """Return the photo of a suspect and, if it is a copy, the photo that it looks like."""
    match = _LIKE.fullmatch(suspect.detail) if suspect.kind == COPY else None
    return [suspect.file, *([match["file"]] if match else [])]


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write all suspects as a CSV file, in their order."""
    header = ("file", "split", "class", "suggested class", "kind", "score", "detail")
    write_csv(path, header, ((*one[:5], f"{one.score:.4f}", one.detail) for one in suspects))


def _wrong_labels(
    doubts: LabelDoubts, rows: npt.NDArray[np.int64], classes: Sequence[str]
) -> Iterator[tuple[str, int, float, str, str]]:
    """Yield kind, row, score, detail and suggested class of labels that are probably wrong."""
    for place in doubts.doubtful.nonzero()[0].tolist():
        other, own = doubts.suggested_probability[place], doubts.own_probability[place]
        suggested = classes[doubts.suggested[place]]
        detail = f"{suggested} {other:.0%}, label {own:.0%}"
        yield LABEL, int(rows[place]), float(doubts.score[place]), detail, suggested


def _copies(path: Path) -> Iterator[Suspect]:
    """Yield the photos that `prepare` left out because they look like one of another class."""
    for line in _read_csv(path):
        detail = line["detail"]
        match = _LIKE.fullmatch(detail) if line["reason"] == NEAR_COPY else None
        if match or (line["reason"] == DUPLICATE and detail == _COPIES):
            other = match["label"] if match else ""
            yield Suspect(line["file"], LEFT_OUT, line["class"], other, COPY, 1.0, detail)


def _originals(
    data: DataParams, measured: Collection[str], decoded: Collection[str]
) -> tuple[Originals, list[str]]:
    """Read the archive; if it is not there, return nothing and a note."""
    try:
        return read_originals(data, measured, decoded), []
    except ArchiveError as err:
        return Originals({}, {}), [f"Shape and size: not checked ({err})"]


def _confusions(doubts: LabelDoubts, classes: Sequence[str]) -> list[Confusion]:
    joint = doubts.joint
    found = [
        Confusion(classes[i], classes[j], float(joint[i, j]), float(joint[i, j] / joint[i].sum()))
        for i, j in np.argwhere(joint > 0).tolist()
        if i != j
    ]
    return sorted(found, key=lambda one: (-round(one.photos, 4), one.label, one.other))


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError) as err:
        raise StoreError(f"{path}: cannot be read ({err}); run `dvc repro prepare`") from err
