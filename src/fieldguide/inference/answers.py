"""Classify the photos that `fieldguide predict` was given, and print a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fieldguide.core.errors import FieldguideError, PhotoError, printable
from fieldguide.core.output import print_utf8
from fieldguide.inference.classifier import Classifier, Prediction
from fieldguide.prepare.folder import photos_below
from fieldguide.prepare.names import PHOTO_SUFFIXES, by_suffix

Answer = tuple[Path, Prediction | PhotoError]
_MAX_WIDTH = 60  # characters; columns are not aligned below a longer name of a photo


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


def classify(
    classifier: Classifier, photos: list[Path], unreadable: list[Path]
) -> Iterator[Answer]:
    """Classify photos, with a progress bar if stderr is a terminal.

    Args:
        classifier: gives the answers.
        photos: files.
        unreadable: photos that cannot be read are appended here.

    Yields:
        Each photo with its prediction or its error, in order.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and len(photos) > 1
    # If stdout is the same terminal, Rich prints the answers above the bar.
    redirect = shown and sys.stdout.isatty()
    with Progress(console=console, disable=not shown, redirect_stdout=redirect) as bar:
        answers = bar.track(classifier.predict_all(photos), len(photos), description="photos")
        for photo, answer in zip(photos, answers, strict=True):
            if isinstance(answer, PhotoError):
                unreadable.append(photo)
            yield photo, answer


def write_table(answers: Iterable[Answer], top: int, photos: list[Path]) -> None:
    """Print aligned columns; a photo that cannot be read is named on stderr.

    Args:
        answers: of `classify`.
        top: number of classes to name.
        photos: all of them; the longest name sets the width of the first column.
    """
    width = min(_MAX_WIDTH, max((len(str(photo)) for photo in photos), default=0))
    for photo, answer in answers:
        if isinstance(answer, PhotoError):
            print(printable(str(answer)), file=sys.stderr, flush=True)
            continue
        classes = "   ".join(f"{label} {value:.1%}" for label, value in answer.top(top).items())
        print(printable(f"{photo!s:<{width}}   {classes}"), flush=True)


def write_json(answers: Iterable[Answer], top: int) -> None:
    """Print an array with one object per photo (one or more): its classes or its error."""
    separator = "["
    for photo, answer in answers:
        row: dict[str, object] = {"photo": str(photo)}
        if isinstance(answer, PhotoError):
            row["error"] = str(answer)
        else:
            top_classes = answer.top(top).items()
            row["classes"] = [{"class": name, "probability": p} for name, p in top_classes]
        print(f"{separator}\n  {json.dumps(row)}", end="", flush=True)
        separator = ","
    print("\n]")


def write_csv(answers: Iterable[Answer], top: int) -> None:
    """Print one row per photo, with columns photo, class_1, probability_1, class_2, ..., error."""
    columns = [f"{name}_{k}" for k in range(1, top + 1) for name in ("class", "probability")]
    print_utf8()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", *columns, "error"])
    for photo, answer in answers:
        if isinstance(answer, PhotoError):
            cells = [*([""] * len(columns)), answer]
        else:
            cells = [*(cell for pair in answer.top(top).items() for cell in pair), ""]
        writer.writerow(printable(str(cell)) for cell in (photo, *cells))
