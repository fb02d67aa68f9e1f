"""Simulate reviews: label what `fieldguide review` proposes, or as many photos at random.

    make venv && . .venv/bin/activate
    python benchmarks/review.py            # 20 minutes on one core; resumes
    python benchmarks/review.py --table    # write the table of docs/review.md

The photos of the sample's training folder begin without labels. A validation set of 1,000 photos
and the first tenth of the others are labelled at random, once for both ways. Then the classifier
that was trained on these proposes as many photos as are missing for the next share, by the queue of
`fieldguide review FOLDER`, and the true class is written into the label table; or they are drawn at
random. Every classifier is trained anew, in one thread, and tested once on the 1,000 test photos.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from contender import ROOT
from long_tail import SAMPLE
from original_recipe import fit_fieldguide
from photos import prepared
from recipe import add_row, params_of, read_rows, spread

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs/review.md"
SHARES = (0.1, 0.2, 0.4)  # of the photos that may be labelled
VALIDATION = 1000  # photos
WAYS = ("random", "review")
SIZE = 32  # pixels
CHANGES = {"train.epochs": 40, "train.patience": 40}  # few photos need more epochs


def review(way: str, seed: int, folder: Path) -> Iterable[dict[str, Any]]:
    """Label, train and test at every share; give the row of each.

    Args:
        way: of WAYS.
        seed: of the first photos, of those that are drawn, and of the trainings.
        folder: an empty one.
    """
    from fieldguide.evaluation.predict import predict_split
    from fieldguide.inference.load import load
    from fieldguide.network.bundle import save_bundle
    from fieldguide.prepare.archives import open_archives
    from fieldguide.review.queues import least_certain

    with open_archives(str(SAMPLE)) as archives:
        photos = {one.source: one for one in archives.members if one.name.endswith(".jpg")}
        pool = sorted(name for name in photos if PurePosixPath(name).parts[-3] == "train")
        splits = dict.fromkeys(sorted(set(photos) - set(pool)), "test")
        generator = random.Random(seed)  # noqa: S311 - of a benchmark
        generator.shuffle(pool)
        splits |= dict.fromkeys(pool[:VALIDATION], "val")
        pool = pool[VALIDATION:]
        proposed = pool
        for share in SHARES:
            labelled = sum(split == "train" for split in splits.values())
            wanted = round(share * len(pool)) - labelled
            splits |= dict.fromkeys(proposed[:wanted], "train")
            store = _store(splits, folder / f"{share}")
            params = params_of(SIZE, CHANGES | {"train.seed": seed})
            with contextlib.redirect_stdout(io.StringIO()):
                bundle, _ = fit_fieldguide(store.folder, params)
            test = store.split("test")
            hits = predict_split(bundle, test).argmax(1) == test.labels
            yield {
                "way": way,
                "seed": seed,
                "share": share,
                "photos": len(store.split("train")),
                "val_acc": bundle.val_acc,
                "test_acc": float(hits.mean()),
            }
            proposed = [name for name in pool if name not in splits]
            if way == "review":
                members = [photos[name] for name in proposed]
                save_bundle(bundle, folder / f"{share}/classifier")
                classifier = load(folder / f"{share}/classifier")
                found, _ = least_certain(classifier, archives, members)
                proposed = [proposed[k] for k, _ in found]


def _store(splits: dict[str, str], folder: Path) -> Any:
    """Prepare the photos that have a split, by a label table."""
    from fieldguide.core.store import Store

    folder.mkdir()
    table = folder / "labels.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split"])
        writer.writerows([name, PurePosixPath(name).parts[-2], splits[name]] for name in splits)
    target = folder / "store"
    return Store(prepared(SAMPLE, target, size=SIZE, labels=str(table), near_copies=True))


def main() -> None:
    """Run the reviews that are missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="write docs/review.md and stop")
    args = parser.parse_args()
    if args.table:
        from table import insert

        if not insert(PAGE, table(read_rows(ROWS)), "simulated review"):
            sys.exit(f"{PAGE}: has no <!-- simulated review -->")
        return
    from fieldguide.core import compute

    params = params_of(SIZE, {"compute.threads": 1})
    compute.set_up(params.compute, params.model)
    done = {(row["way"], row["seed"]) for row in read_rows(ROWS) if row["share"] == SHARES[-1]}
    for seed in args.seeds:
        for way in WAYS:
            if (way, seed) not in done:
                with tempfile.TemporaryDirectory() as folder:
                    rows = list(review(way, seed, Path(folder)))
                for row in rows:
                    add_row(ROWS, row)
    print(table(read_rows(ROWS)))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the test accuracy of both ways at every share, and the difference of equal seeds."""
    found = {(row["way"], row["seed"], row["share"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "| labelled | at random | what review proposes | difference | seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for share in SHARES:
        tested = {way: [found[way, seed, share]["test_acc"] for seed in seeds] for way in WAYS}
        gain = [b - a for a, b in zip(tested["random"], tested["review"], strict=True)]
        photos = statistics.mean(
            found[way, seed, share]["photos"] for way in WAYS for seed in seeds
        )
        cells = [spread(tested["random"]), spread(tested["review"]), spread(gain, sign="+")]
        lines.append(f"| {share:.0%}, {photos:,.0f} photos | {' | '.join(cells)} | {len(seeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
