"""Find the photos that `fieldguide predict` was given, and classify them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fieldguide.core.errors import FieldguideError, PhotoError
from fieldguide.inference.classifier import Classifier
from fieldguide.prepare.folder import photos_below
from fieldguide.prepare.names import PHOTO_SUFFIXES, by_suffix

# What is written of one photo, ready for JSON: `photo`, and `classes` (class and probability of
# each, the most probable first) or `error`. With a smallest confidence also `answer`: the most
# probable class, or UNSURE.
Row = dict[str, Any]
UNSURE = "unsure"
AUTO = "auto"  # the classifier's min_confidence


def find_photos(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """List photos: every given file, and the photos below given folders.

    Returns:
        The photos, and the files in the folders that are not photos.

    Raises:
        ArchiveError: a folder cannot be read, or is a link below a given one.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    for path in paths:
        if path.is_dir():
            photos, others = photos_below(path)
            found += photos
            skipped += others
        else:
            found.append(path)
    return found, skipped


def no_photo(where: str, skipped: list[Path]) -> FieldguideError:
    """Return the error for folders without a photo; it counts their other files by suffix."""
    but = f", but {by_suffix(file.name for file in skipped)}" if skipped else ""
    return FieldguideError(f"{where}: found no photo{but}; allowed: {' '.join(PHOTO_SUFFIXES)}")


def read_min_confidence(text: str | None, classifier: Classifier) -> float | None:
    """Return the smallest probability of an answer that is not UNSURE, in [0, 1].

    Args:
        text: a number from 0 to 1, AUTO for the classifier's min_confidence, or None for none.
        classifier: gives the answers.

    Raises:
        FieldguideError: the text is something else, the classifier has no min_confidence, or one
            of its classes has the name UNSURE itself.
    """
    if text is None:
        return None
    if UNSURE in classifier.classes:
        raise FieldguideError(
            f"--min-confidence: found a class named {UNSURE!r}; allowed: a classifier without one"
        )
    if text != AUTO:
        return _number(text)
    if classifier.min_confidence is None:
        reason = (
            "no confidence reached train.target_precision on its validation photos"
            if classifier.calibrated
            else "it was trained on its validation photos too"
        )
        raise FieldguideError(
            f"--min-confidence {AUTO}: this classifier has no min_confidence, because {reason}; "
            "allowed: 0 to 1"
        )
    return classifier.min_confidence


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:  # a NaN is not
        raise FieldguideError(f"--min-confidence: found {text!r}; allowed: {AUTO}, or 0 to 1")
    return found


def classify(
    classifier: Classifier,
    photos: list[Path],
    *,
    top: int,
    min_confidence: float | None = None,
    start: int = 0,
) -> Iterator[Row]:
    """Classify photos, with a progress bar if stderr is a terminal.

    Args:
        classifier: gives the answers.
        photos: files.
        top: number of classes to name.
        min_confidence: in [0, 1]; the answer is UNSURE if the most probable class has a lower
            probability. None for no `answer`.
        start: index of the first photo to classify; earlier ones count as done in the bar.

    Yields:
        One row for each photo from `start` on, in order.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and len(photos) > 1
    columns = (
        *(TextColumn("photos"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn()),
        *(_SpeedColumn(), TimeRemainingColumn()),
    )
    # If stdout is the same terminal, Rich prints the answers above the bar.
    redirect = shown and sys.stdout.isatty()
    with Progress(*columns, console=console, disable=not shown, redirect_stdout=redirect) as bar:
        answers = classifier.predict_all(photos[start:])
        tracked = bar.track(answers, len(photos), completed=start)
        for photo, answer in zip(photos[start:], tracked, strict=True):
            row: Row = {"photo": _valid(str(photo))}
            if isinstance(answer, PhotoError):
                yield {**row, "error": _valid(str(answer))}
                continue
            if min_confidence is not None:
                row["answer"] = answer.label if answer.probability >= min_confidence else UNSURE
            named = answer.top(top).items()
            yield {**row, "classes": [{"class": name, "probability": p} for name, p in named]}


def _valid(name: str) -> str:
    r"""Replace each byte that is not UTF-8, such as 0xff, by \udcff: no format can store it."""
    return name.encode("utf-8", "backslashreplace").decode()


def note_unreadable(rows: Iterable[Row], unreadable: list[str]) -> Iterator[Row]:
    """Pass rows on, and append the photos that cannot be read to a list."""
    for row in rows:
        if "error" in row:
            unreadable.append(row["photo"])
        yield row


class _SpeedColumn(ProgressColumn):
    """Photos per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} photos/s" if speed else "")
