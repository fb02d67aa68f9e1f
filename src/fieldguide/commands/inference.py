"""`fieldguide predict`, `explain`, `export` and `serve`: use a classifier."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import FieldguideError, printable

if TYPE_CHECKING:
    from fieldguide.inference.answers import Row
    from fieldguide.inference.class_folders import ClassFolders

app = typer.Typer()


def _target(name: str) -> Path:
    """Return the path to write to: of a symbolic link its target, so that the link stays."""
    if not name:
        raise typer.BadParameter("found ''; allowed: a name")
    path = Path(name)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


Model = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="a classifier's folder or .onnx file; or a stage, version, Git revision or experiment",
    ),
]


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="files or folders")],
    *,
    model: Model = "models/classifier",
    top: Annotated[int, typer.Option(min=1, help="number of classes to name")] = 3,
    min_confidence: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="0 to 1, or auto for the classifier's; less probable answers are 'unsure'",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"),
            parser=_target,
            metavar="FILE",
            help="file to write: .csv, .json or .parquet",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with an interrupted --output")
    ] = False,
    sort: Annotated[
        Path | None,
        typer.Option(
            parser=_target,
            metavar="DIR",
            help="also link or copy the photos into class folders in DIR",
        ),
    ] = None,
) -> None:
    """Print or write the most probable classes of photos.

    Exit status 1: a photo could not be read.
    """
    from fieldguide.inference import answers, formats
    from fieldguide.inference.answer_file import check_output, describe_run, write_answers
    from fieldguide.inference.class_folders import ClassFolders
    from fieldguide.inference.find import find_model
    from fieldguide.inference.load import load

    if (as_json, as_csv, output is not None).count(True) > 1:
        raise FieldguideError("--json, --csv and --output: found several; allowed: one of them")
    if output is not None:
        check_output(output)
    elif resume:
        raise FieldguideError("--resume: found no --output; allowed: with the file to go on with")
    files, skipped = answers.find_photos(photos)
    if not files:
        raise answers.no_photo(", ".join(map(str, photos)), skipped)
    path = find_model(model)
    classifier = load(path)
    smallest = answers.read_min_confidence(min_confidence, classifier)
    header = formats.columns(classifier, top, with_answer=smallest is not None)
    folders = None if sort is None else ClassFolders(sort, classifier.classes, photos)

    unreadable: list[str] = []

    def rows_from(start: int) -> Iterable[Row]:
        return answers.classify(classifier, files, top=top, min_confidence=smallest, start=start)

    def finish(rows: Iterable[Row]) -> Iterable[Row]:
        rows = answers.note_unreadable(rows, unreadable)
        return rows if folders is None else folders.sort(rows, files)

    if output is None:
        _print(finish(rows_from(0)), files, header, as_json=as_json, as_csv=as_csv)
    else:
        run = describe_run(path, files, top=top, min_confidence=smallest)
        write_answers(output, header, rows_from, finish, run=run, photos=len(files), resume=resume)
        print(printable(str(output)))
    _say_counts(len(files), len(unreadable), skipped, folders)
    if unreadable:
        raise typer.Exit(1)


def _print(
    rows: Iterable[Row], files: list[Path], header: list[str], *, as_json: bool, as_csv: bool
) -> None:
    """Print answers as JSON, CSV or a table."""
    from fieldguide.core.output import print_utf8
    from fieldguide.inference import formats

    if as_json:
        formats.write_json(rows, sys.stdout)
    elif as_csv:
        print_utf8()
        out = formats.Terminal(sys.stdout) if sys.stdout.isatty() else sys.stdout
        formats.write_csv(rows, header, out)
    else:
        formats.print_table(rows, files)


def _say_counts(
    photos: int, unreadable: int, skipped: list[Path], folders: ClassFolders | None
) -> None:
    from fieldguide.core.output import counted
    from fieldguide.prepare.names import by_suffix

    if photos > 1:
        print(f"{photos - unreadable:,} of {photos:,} photos classified", file=sys.stderr)
    if folders is not None:
        done = ", ".join(f"{number:,} {what}" for what, number in folders.counts.items() if number)
        print(f"photos in class folders: {done or 'none'}", file=sys.stderr)
    if skipped:
        others = by_suffix(file.name for file in skipped)
        print(f"{counted(len(skipped), 'file')} skipped as no photo: {others}", file=sys.stderr)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO")],
    model: Model = "models/classifier",
    label: Annotated[
        str | None,
        typer.Option("--class", help="class to explain; the most probable one by default"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", parser=_target, metavar="FILE", help="PNG file to write"),
    ] = None,
) -> None:
    """Draw which pixels of a photo speak for its class."""
    from fieldguide.core.files import write_bytes
    from fieldguide.inference.find import find_model
    from fieldguide.inference.load import load

    target = output or _target(f"{photo.stem}_explained.png")
    if target.suffix.lower() != ".png":
        raise FieldguideError(f"--output: found {target}; allowed: a name ending in .png")
    try:
        picture = load(find_model(model)).explain(photo, label)
    except ValueError as err:
        raise FieldguideError(f"--class: {err}") from err
    write_bytes(target, picture)
    print(printable(str(target)))


@app.command()
def export(
    model: Model = "models/classifier",
    output: Annotated[
        Path, typer.Option("--output", "-o", parser=_target, metavar="FILE", help="file to write")
    ] = Path("models/exported/classifier.onnx"),
    photos: Annotated[
        Path | None,
        typer.Option(help="folder of photos to compare answers on; the test split by default"),
    ] = None,
) -> None:
    """Write the classifier as one ONNX file for other programs.

    The file is written only if it gives the same answers as the original.
    """
    from fieldguide.inference.export import export as write_export
    from fieldguide.inference.find import find_model

    write_export(find_model(model), output, photos=photos)


@app.command()
def serve(
    model: Model = "models/classifier",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one")] = 8000,
) -> None:
    """Serve a page and an HTTP API that classify and explain photos."""
    try:
        from fieldguide.inference.server import serve as start
    except ModuleNotFoundError as err:
        raise FieldguideError(
            f"{err.name} is not installed: pip install 'fieldguide[serve]'"
        ) from err
    from fieldguide.inference.card import make_card
    from fieldguide.inference.find import find_model
    from fieldguide.inference.load import load

    folder = find_model(model)
    classifier = load(folder)
    start(classifier, make_card(classifier, folder), host=host, port=port)
