"""Measure what calibration does, and what "unsure" keeps back, on several collections.

    make venv && . .venv/bin/activate
    python benchmarks/trust.py                   # half an hour on one core; resumes
    python benchmarks/trust.py --imagenette data/imagenette144.zip    # half an hour more
    python benchmarks/trust.py --table           # write the tables of docs/trust.md

Collections: the bundled sample; a long tail of its training photos (benchmarks/long_tail.py) with
and without `train.balance`; the sample without two of its classes, which every seed draws, so that
their 1,200 photos are of no class that training has seen; and Imagenette at 64 pixels. All numbers
of a row are those that the stage `evaluate` writes, on test photos, except the last two: photos of
the classes that were left out. Each training runs in one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import statistics
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from contender import ROOT
from long_tail import SAMPLE, make_archive
from original_recipe import fit_fieldguide
from photos import prepared
from recipe import IMAGENETTE, add_row, params_of, read_rows, spread

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs/trust.md"
HELD_OUT = 2  # classes
VAL_FRACTION = 0.2
RARE = {"train.monitor": "val/macro_f1", "train.epochs": 60, "train.patience": 60}


class Collection(NamedTuple):
    """Photos and params of a row of the table."""

    changes: dict[str, Any]  # of params.yaml
    size: int = 32  # pixels


COLLECTIONS = {
    "sample": Collection({}),
    "long tail": Collection(RARE),
    "long tail, logit_adjustment": Collection(RARE | {"train.balance": "logit_adjustment"}),
    "sample without two classes": Collection({}),
    "Imagenette, 64 pixels": Collection(IMAGENETTE | {"train.epochs": 12}, size=64),
}


def without_two(target: Path, unseen: Path, *, seed: int) -> list[str]:
    """Write the sample without two classes, and the photos of these alone; return their names."""
    with zipfile.ZipFile(SAMPLE) as source:
        names = sorted(name for name in source.namelist() if not name.endswith("/"))
        classes = sorted({PurePosixPath(name).parts[-2] for name in names})
        left_out = sorted(random.Random(seed).sample(classes, HELD_OUT))  # noqa: S311 - no secret
        with zipfile.ZipFile(target, "w") as kept, zipfile.ZipFile(unseen, "w") as others:
            for name in names:
                written = others if PurePosixPath(name).parts[-2] in left_out else kept
                written.writestr(zipfile.ZipInfo(name), source.read(name))
    return left_out


def measure(name: str, seed: int, folder: Path, imagenette: Path | None) -> dict[str, Any]:
    """Prepare, train, evaluate; return the row.

    Args:
        name: key of COLLECTIONS.
        seed: of the training, and of the photos or classes that are drawn.
        folder: an empty one.
        imagenette: its archive.
    """
    from fieldguide.core.store import SPLITS, Store
    from fieldguide.evaluation.evaluate import evaluate_bundle
    from fieldguide.evaluation.predict import predict_split

    collection = COLLECTIONS[name]
    archive, unseen, left_out = folder / "photos.zip", folder / "unseen.zip", []
    if name.startswith("long tail"):
        make_archive(SAMPLE, archive, seed=seed)
    elif name.endswith("two classes"):
        left_out = without_two(archive, unseen, seed=seed)
    else:
        archive = imagenette if imagenette and name.startswith("Imagenette") else SAMPLE
    size = collection.size
    store = Store(
        prepared(archive, folder / "store", size=size, val_fraction=VAL_FRACTION, near_copies=True)
    )
    params = params_of(size, collection.changes | {"train.seed": seed})
    with contextlib.redirect_stdout(io.StringIO()):
        bundle, _ = fit_fieldguide(store.folder, params)
    metrics, plots = folder / "metrics", folder / "plots"
    metrics.mkdir()
    plots.mkdir()
    evaluate_bundle(bundle, store, params.evaluate, metrics=metrics, plots=plots)
    found = {one: json.loads((metrics / f"{one}.json").read_text()) for one in _FILES}
    row = {
        "collection": name,
        "seed": seed,
        "val_photos": len(store.split("val")),
        "val_acc": bundle.val_acc,
        "test_acc": found["test"]["test"]["acc"],
        **found["trust"],
    }
    if left_out:
        new = Store(prepared(unseen, folder / "unseen", size=size))
        confidence = predict_split(bundle, new.split(*SPLITS)).max(axis=1)
        limit = row["min_confidence"]
        kept = int((confidence >= limit).sum()) if limit is not None else 0
        row |= {"unseen": left_out, "unseen_photos": len(confidence), "unseen_accepted": kept}
    return row


_FILES = ("test", "trust")


def main() -> None:
    """Run the trainings that are missing, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(COLLECTIONS), default=list(COLLECTIONS))
    parser.add_argument("--imagenette", type=Path, help="imagenette144.zip; without it no such row")
    parser.add_argument("--table", action="store_true", help="write docs/trust.md and stop")
    args = parser.parse_args()
    if args.table:
        from table import insert

        rows = read_rows(ROWS)
        for name, text in (("calibration", table(rows)), ("unseen", unseen_table(rows))):
            if not insert(PAGE, text, name):
                sys.exit(f"{PAGE}: has no <!-- {name} -->")
        return
    from fieldguide.core import compute

    params = params_of(32, {"compute.threads": 1})
    compute.set_up(params.compute, params.model)
    done = {(row["collection"], row["seed"]) for row in read_rows(ROWS)}
    for name in args.only:
        if name.startswith("Imagenette") and not args.imagenette:
            continue
        for seed in args.seeds:
            if (name, seed) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                add_row(ROWS, measure(name, seed, Path(folder), args.imagenette))
    print("\n".join([table(read_rows(ROWS)), "", unseen_table(read_rows(ROWS))]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return a line for each collection: means over seeds, and what each seed reached."""
    lines = [
        (
            "| photos | val | test accuracy | NLL before → after | ECE before → after "
            "| precision reached, seeds 0, 1, 2 | all of them | coverage |"
        ),
        f"|{' --- |' * 8}",
    ]
    for name in COLLECTIONS:
        mine = sorted((row for row in rows if row["collection"] == name), key=lambda r: r["seed"])
        if not mine:
            continue
        nll = [statistics.fmean(row[key] for row in mine) for key in ("nll_before", "nll")]
        ece = [statistics.fmean(row[key] for row in mine) for key in ("ece_before", "ece")]
        cells = (
            name,
            f"{mine[0]['val_photos']:,}",
            spread([row["test_acc"] for row in mine]),
            f"{nll[0]:.3f} → {nll[1]:.3f}",
            f"{100 * ece[0]:.1f} → {100 * ece[1]:.1f}",
            ", ".join(_share(row["right"], row["accepted"]) for row in mine),
            _share(sum(row["right"] for row in mine), sum(row["accepted"] for row in mine)),
            spread([row["accepted"] / row["photos"] for row in mine]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def unseen_table(rows: list[dict[str, Any]]) -> str:
    """Return a line for each seed: "unsure" among photos of known and of unseen classes."""
    lines = [
        (
            "| seed | classes that training never saw | unsure, of their photos "
            "| unsure, of the known classes' test photos |"
        ),
        "| --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: row["seed"]):
        if "unseen" in row:
            unsure = _share(row["unseen_photos"] - row["unseen_accepted"], row["unseen_photos"])
            known = _share(row["photos"] - row["accepted"], row["photos"])
            lines.append(f"| {row['seed']} | {', '.join(row['unseen'])} | {unsure} | {known} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "none accepted"


if __name__ == "__main__":
    main()
