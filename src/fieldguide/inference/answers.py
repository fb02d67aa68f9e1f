"""What `fieldguide predict` prints: a line a photo, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fieldguide.core.errors import PhotoError, printable
from fieldguide.inference.classifier import Classifier, Prediction

Answer = tuple[Path, Prediction | PhotoError]
SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff"),
    *(".gif", ".bmp", ".ppm", ".pgm"),
}
_WIDEST = 60  # characters of a photo's name before columns stop being aligned


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are named, and of folders the pictures in them, by their suffix."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            found += sorted(file for file in files if file.is_file())
        else:
            found.append(path)
    return found


def ask(classifier: Classifier, photos: list[Path], failed: list[Path]) -> Iterator[Answer]:
    """Classify photos in order, with a progress bar on a terminal; add to `failed`."""
    console = Console(stderr=True)
    shown = console.is_terminal and len(photos) > 1
    # Where stdout is the same terminal, its lines go above the bar.
    both = shown and sys.stdout.isatty()
    with Progress(console=console, disable=not shown, redirect_stdout=both) as bar:
        answers = bar.track(classifier.predict_all(photos), len(photos), description="photos")
        for photo, answer in zip(photos, answers, strict=True):
            if isinstance(answer, PhotoError):
                failed.append(photo)
            yield photo, answer


def write_table(answers: Iterator[Answer], *, top: int, photos: Sequence[Path]) -> None:
    """Aligned for people; what cannot be read is named on stderr, in its place."""
    width = min(_WIDEST, max((len(str(photo)) for photo in photos), default=0))
    for photo, answer in answers:
        name = printable(f"{photo!s:<{width}}")
        if isinstance(answer, PhotoError):
            print(printable(str(answer)), file=sys.stderr, flush=True)
            continue
        classes = (f"{label} {value:.1%}" for label, value in answer.top(top).items())
        print(name, "   ".join(map(printable, classes)), sep="   ", flush=True)


def write_json(answers: Iterator[Answer], *, top: int, photos: Sequence[Path]) -> None:
    """Print one array, an object a line: photo and classes, or photo and error."""
    del photos
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
    print("\n]" if separator == "," else "[]")


def write_csv(answers: Iterator[Answer], *, top: int, photos: Sequence[Path]) -> None:
    """Print a header and a line a photo: class_1, probability_1, class_2, ..., error."""
    del photos
    columns = [f"{name}_{k}" for k in range(1, top + 1) for name in ("class", "probability")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", *columns, "error"])
    for photo, answer in answers:
        cells: list[object] = [""] * len(columns)
        error = ""
        if isinstance(answer, PhotoError):
            error = printable(str(answer))
        else:
            cells = [cell for pair in answer.top(top).items() for cell in pair]
        writer.writerow([printable(str(photo)), *cells, error])
