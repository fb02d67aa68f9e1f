"""`fieldguide predict`, `explain`, `serve` and `export`: use a classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

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
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO", help="files, or folders of them")
    ],
    model: Model = "models/classifier",
    top: Annotated[int, typer.Option(min=1, help="classes to name")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Say what is on photos.

    Exit status 1: one of them could not be read.
    """
    from fieldguide.inference import answers
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model

    if as_json and as_csv:
        raise FieldguideError("--json and --csv: found both; allowed: one of them")
    files = answers.find_photos(photos)
    if not files:
        raise FieldguideError(f"{', '.join(map(str, photos))}: found no photo; allowed: pictures")
    classifier = load(find_model(model))
    write = answers.write_table
    if as_json or as_csv:
        write = answers.write_json if as_json else answers.write_csv
    failed: list[Path] = []
    found = answers.ask(classifier, files, failed)
    write(found, top=min(top, len(classifier.classes)), photos=files)
    if len(files) > 1:
        print(f"{len(files) - len(failed):,} of {len(files):,} photos classified", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO")],
    model: Model = "models/classifier",
    label: Annotated[
        str | None, typer.Option("--class", help="what to explain; the most probable by default")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG to write")] = None,
) -> None:
    """Draw which pixels of a photo speak for its class."""
    from fieldguide.core.files import write_bytes
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model
    from fieldguide.inference.torch_classifier import TorchClassifier

    classifier = load(find_model(model))
    if not isinstance(classifier, TorchClassifier):
        raise FieldguideError(
            f"--model: found {model}; allowed: a classifier's folder, because an exported one has "
            "no gradients to explain with"
        )
    try:
        picture = classifier.explain(photo, label)
    except ValueError as err:
        raise FieldguideError(f"--class: {err}") from err
    target = output or Path(f"{photo.stem}_explained.png")
    if target.suffix.lower() != ".png":
        raise FieldguideError(f"--output: found {target}; allowed: a name ending in .png")
    write_bytes(target, picture)
    print(printable(str(target)))


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
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model

    folder = find_model(model)
    classifier = load(folder)
    # The scores are those of the project that the classifier lies in, if it does.
    metrics = folder.absolute().parent.parent / "metrics" / "test.json"
    start(classifier, make_card(classifier, metrics), host=host, port=port)


@app.command()
def export(
    form: Annotated[Literal["onnx", "torch"], typer.Option("--format", help="of the file")],
    model: Model = "models/classifier",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the file; else in models/exported/")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="folder to check the result on; else the test split")
    ] = None,
) -> None:
    """Write the classifier as one file for other programs.

    It is checked against the original.
    """
    from fieldguide.inference.export import export as export_to
    from fieldguide.inference.find import find_model

    export_to(find_model(model), form, out=output, photos=photos)
