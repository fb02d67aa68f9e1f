"""`fieldguide audit`: find wrong labels and poor photos in the prepared store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldguide.core.errors import FieldguideError, printable

app = typer.Typer()


class AuditedSplit(StrEnum):
    """A split whose photos may be audited."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@app.command()
def audit(
    *,
    split: Annotated[
        list[AuditedSplit] | None,
        typer.Option(help="split to audit, several times for several; train and val by default"),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="network of timm whose features to use; models/classifier by default",
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="for --backbone: pretrained, or a file in models/weights/")
    ] = "pretrained",
    most: Annotated[int, typer.Option(min=1, help="photos of each kind on the page")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="of the folds")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="file of the page; plots/audit.html by default, audit-test.html for test"
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of all suspects; plots/audit.csv by default, audit-test.csv for test"
        ),
    ] = None,
) -> None:
    """Find labels that are probably wrong, and poor photos.

    Writes a page and a CSV file, the worst first; changes nothing else. `fieldguide review` shows
    the photos of plots/audit.csv. Test photos are audited only with --split test.
    """
    from fieldguide.core import compute
    from fieldguide.core.params import load_params

    params = load_params(Path("params.yaml"))
    portable = compute.set_up(params.compute)
    import torch

    from fieldguide.audit.audit import audit as find_suspects
    from fieldguide.audit.audit import write_suspects
    from fieldguide.audit.audit_page import render_page
    from fieldguide.audit.photo_features import (
        network_of_classifier,
        photo_features,
        pretrained_network,
    )
    from fieldguide.audit.suspect import TITLES
    from fieldguide.core.files import write_text
    from fieldguide.core.store import Store
    from fieldguide.results.paths import MODEL, PREPARED

    asked = split or [AuditedSplit.TRAIN, AuditedSplit.VAL]
    audited = [one.value for one in AuditedSplit if one in asked]
    with_test = "test" in audited
    # `fieldguide review` reads plots/audit.csv and shows no test photos.
    output = output or Path("plots/audit-test.html" if with_test else "plots/audit.html")
    table = table or Path("plots/audit-test.csv" if with_test else "plots/audit.csv")
    if output.resolve() == table.resolve():
        raise FieldguideError(f"--output, --table: found {output} twice; allowed: different files")
    store = Store(Path(PREPARED))
    if backbone is None:
        if weights != "pretrained":
            raise FieldguideError(f"--weights: found {weights}; allowed: with --backbone only")
        network = network_of_classifier(Path(MODEL))
    else:
        network = pretrained_network(params.model, store, backbone, weights)
    splits = ["train", "val", *(["test"] if with_test else [])]
    device = torch.device("cuda" if torch.cuda.is_available() and not portable else "cpu")
    features = photo_features(network, params.model, store, splits, device=device)
    found = find_suspects(store, features, params.data, splits=splits, audited=audited, seed=seed)
    write_suspects(table, found.suspects)
    write_text(output, render_page(found, store, most=most))
    for kind, title in TITLES.items():
        count = sum(one.kind == kind for one in found.suspects)
        if count:
            print(f"{count:>7,}  {title.lower()}")
    for note in found.notes:
        print(printable(f"Not checked: {note}"))
    print(f"{output}\n{table}  {len(found.suspects):,} suspects")
    if with_test:
        print(
            "Test photos were checked too. `fieldguide review` reads plots/audit.csv, and shows no "
            "suspects that are test photos"
        )
