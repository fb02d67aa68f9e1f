"""`fieldguide predict`, `explain`, `export` and `serve`: use a classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fieldguide.core.errors import FieldguideError, printable

app = typer.Typer()

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
    model: Model = "models/classifier",
    top: Annotated[int, typer.Option(min=1, help="number of classes to name")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Print the most probable classes of photos.

    Exit status 1: a photo could not be read.
    """
    from fieldguide.core.output import counted
    from fieldguide.inference import answers
    from fieldguide.inference.find import find_model
    from fieldguide.inference.load import load
    from fieldguide.prepare.names import by_suffix

    if as_json and as_csv:
        raise FieldguideError("--json and --csv: found both; allowed: one of them")
    files, skipped = answers.find_photos(photos)
    if not files:
        raise answers.no_photo(", ".join(map(str, photos)), skipped)
    classifier = load(find_model(model))
    top = min(top, len(classifier.classes))
    unreadable: list[Path] = []
    found = answers.classify(classifier, files, unreadable)
    if as_json:
        answers.write_json(found, top)
    elif as_csv:
        answers.write_csv(found, top)
    else:
        answers.write_table(found, top, files)
    if len(files) > 1:
        count = len(files) - len(unreadable)
        print(f"{count:,} of {len(files):,} photos classified", file=sys.stderr)
    if skipped:
        others = by_suffix(file.name for file in skipped)
        print(f"{counted(len(skipped), 'file')} skipped as no photo: {others}", file=sys.stderr)
    if unreadable:
        raise typer.Exit(1)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO")],
    model: Model = "models/classifier",
    label: Annotated[
        str | None,
        typer.Option("--class", help="class to explain; the most probable one by default"),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG file to write")] = None,
) -> None:
    """Draw which pixels of a photo speak for its class."""
    from fieldguide.core.files import write_bytes
    from fieldguide.inference.find import find_model
    from fieldguide.inference.load import load

    target = output or Path(f"{photo.stem}_explained.png")
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
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path(
        "models/exported/classifier.onnx"
    ),
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
    # A classifier lies in PROJECT/models/classifier; its test results lie in the same project.
    card = make_card(classifier, folder.absolute().parent.parent)
    start(classifier, card, host=host, port=port)
