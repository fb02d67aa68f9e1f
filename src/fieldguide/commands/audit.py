"""`fieldguide audit`: find wrong labels and poor photos in the prepared store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldguide.core.errors import FieldguideError

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
    output: Annotated[Path, typer.Option(help="file of the page")] = Path("plots/audit.html"),
    table: Annotated[Path, typer.Option(help="CSV file of all suspects")] = Path("plots/audit.csv"),
) -> None:
    """Find labels that are probably wrong, and poor photos.

    Writes a page and a CSV file, the worst first; changes nothing else. Test photos are audited
    only with --split test.
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

    store = Store(Path("data/prepared"))
    if backbone is None:
        if weights != "pretrained":
            raise FieldguideError(f"--weights: found {weights}; allowed: with --backbone only")
        network = network_of_classifier(Path("models/classifier"))
    else:
        network = pretrained_network(params.model, store, backbone, weights)
    asked = split or [AuditedSplit.TRAIN, AuditedSplit.VAL]
    shown = [one.value for one in AuditedSplit if one in asked]
    splits = ["train", "val", *(["test"] if "test" in shown else [])]
    device = torch.device("cuda" if torch.cuda.is_available() and not portable else "cpu")
    features = photo_features(network, params.model, store, splits, device=device)
    found = find_suspects(store, features, params.data, splits=splits, shown=shown, seed=seed)
    write_suspects(table, found.suspects)
    write_text(output, render_page(found, store, most=most))
    for kind, title in TITLES.items():
        count = sum(one.kind == kind for one in found.suspects)
        if count:
            print(f"{count:>7,}  {title.lower()}")
    for note in found.notes:
        print(note)
    print(f"{output}\n{table}  {len(found.suspects):,} suspects")
