"""Measure what each `train.balance` does on classes of very unequal size.

    make venv && . .venv/bin/activate
    python benchmarks/long_tail.py --workers 2    # resumes after an interruption
    python benchmarks/long_tail.py --table        # write the table of docs/recipe.md

The training photos of data/sample.zip are reduced to a long tail: 500 of the first class, 100 times
fewer of the last, exponentially in between (Cui et al. 2019, section 5.1). The test photos stay, so
that all classes count equally there. Every seed draws other photos, and seeds the training too.
Each training is a process of one thread, portable, and is tested once. Its result is a line of
benchmarks/long_tail.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from contender import ROOT
from recipe import add_row, params_of, read_rows, spread

ROWS = ROOT / "benchmarks/long_tail.jsonl"
PAGE = ROOT / "docs/recipe.md"
SAMPLE = ROOT / "data/sample.zip"
# Training photos of the first class, and how many times those of the last.
LARGEST, RATIO = 500, 100
HALF = 5  # classes: the largest, and the rarest, whose mean recalls have a column
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"train.balance": "none"},
    "weights": {"train.balance": "weights"},
    "weights, balance_beta 0.999": {"train.balance": "weights", "train.balance_beta": 0.999},
    "sampler": {"train.balance": "sampler"},
    "logit_adjustment": {"train.balance": "logit_adjustment"},
}
# No training stops early, so that all of them see the same number of photos.
COMMON = {
    "train.monitor": "val/macro_f1",
    "train.accelerator": "cpu",
    "compute.portable": True,
    "compute.threads": 1,
}
_COLUMNS = {  # key of a row -> head of the table
    "test_acc": "test accuracy",
    "test_macro_f1": "test macro F1",
    "common_recall": f"recall of the {HALF} largest",
    "rare_recall": f"recall of the {HALF} rarest",
    "val_macro_f1": "val macro F1",
    "val_ece": "val ECE",
    "test_ece": "test ECE",
}


def sizes(classes: int) -> list[int]:
    """Return the training photos of each class, the largest first."""
    return [round(LARGEST * RATIO ** (-k / (classes - 1))) for k in range(classes)]


def make_archive(sample: Path, target: Path, *, seed: int) -> None:
    """Write a zip with all test photos of the sample, and the long tail of its training photos.

    Args:
        sample: zip of <top>/train/<class>/*.jpg and <top>/val/<class>/*.jpg.
        target: zip to write; the same seed gives the same bytes.
        seed: of the draw of the photos of each class.
    """
    with zipfile.ZipFile(sample) as source, zipfile.ZipFile(target, "w") as written:
        names = sorted(name for name in source.namelist() if not name.endswith("/"))
        photos: dict[str, list[str]] = {}
        for name in names:
            if PurePosixPath(name).parts[-3] == "train":
                photos.setdefault(PurePosixPath(name).parts[-2], []).append(name)
        kept = {name for name in names if PurePosixPath(name).parts[-3] != "train"}
        generator = random.Random(seed)  # noqa: S311 - of a benchmark
        for label, size in zip(sorted(photos), sizes(len(photos)), strict=True):
            kept.update(generator.sample(photos[label], size))
        for name in sorted(kept):
            written.writestr(zipfile.ZipInfo(name), source.read(name))


def train_one(store: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Train and test params.yaml with changes; return the scores."""
    from original_recipe import fit_fieldguide

    from fieldguide.core import compute

    params = params_of(32, changes)
    compute.set_up(params.compute, params.model)
    from fieldguide.core.store import Store
    from fieldguide.evaluation.metrics import evaluate
    from fieldguide.evaluation.predict import predict_split
    from fieldguide.evaluation.predictions import Predictions

    prepared = Store(store)
    bundle, _ = fit_fieldguide(store, params)
    bundle = replace(bundle, calibration=None)  # ECE of the network's own probabilities
    found = {}
    for name in ("val", "test"):
        split = prepared.split(name)
        probabilities = predict_split(bundle, split, portable=True)
        predictions = Predictions(split.sources, prepared.classes, split.labels, probabilities)
        found[name] = evaluate(predictions, bins=params.evaluate.calibration_bins)
    return {
        **{f"{name}_macro_f1": round(scores.macro_f1, 6) for name, scores in found.items()},
        **{f"{name}_ece": round(scores.ece, 6) for name, scores in found.items()},
        "test_acc": found["test"].acc,
        "test_bal_acc": round(found["test"].bal_acc, 6),
        "recalls": [one.recall for one in found["test"].per_class],
    }


def main() -> None:
    """Run the trainings that are missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--table", action="store_true", help="write docs/recipe.md and stop")
    # JSON: the store and the changes of the one training that this process runs
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        store, changes = json.loads(args.one)
        print("\n" + json.dumps(train_one(Path(store), changes)))
        return
    if args.table:
        from table import insert

        if not insert(PAGE, table(read_rows(ROWS)), "long tail"):
            sys.exit(f"{PAGE}: has no <!-- long tail -->")
        return
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        work = [one for seed in args.seeds for one in plan(args, seed, Path(folder))]
        known = [_identity(row) for row in read_rows(ROWS)]
        todo = [one for one in work if _identity(one) not in known]
        print(f"{len(work) - len(todo)} trainings done, {len(todo)} to run", flush=True)
        done = list(pool.map(lambda one: measure(one, Path(folder)), todo))
    if not all(done):
        sys.exit(f"{done.count(False)} trainings failed; run the same command to try them again")


def plan(args: argparse.Namespace, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Prepare the photos of a seed, and describe its trainings."""
    from photos import prepared

    archive = folder / f"{seed}.zip"
    make_archive(SAMPLE, archive, seed=seed)
    prepared(archive, folder / str(seed), size=32, val_fraction=0.2)
    photos = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
    common = {**COMMON, "train.epochs": args.epochs, "train.patience": args.epochs}
    return [
        {"photos": photos, "variant": name, "seed": seed, "set": common | VARIANTS[name]}
        for name in args.only
    ]


def measure(work: dict[str, Any], folder: Path) -> bool:
    """Train in a new process and append the result to ROWS; return False if it failed."""
    changes = {**work["set"], "train.seed": work["seed"]}
    job = json.dumps([str(folder / str(work["seed"])), changes])
    done = subprocess.run(
        [sys.executable, __file__, "--one", job],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    if done.returncode:
        print(f"{work['variant']}, seed {work['seed']}: failed", file=sys.stderr)
        return False
    row = work | json.loads(done.stdout.splitlines()[-1])
    add_row(ROWS, row)
    print(f"{row['variant']:<30} seed {row['seed']}  test {row['test_acc']:.1%}", flush=True)
    return True


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("photos", "seed", "set")}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the mean and standard deviation over seeds of each variant, in percent."""
    lines = [
        f"| train.balance | {' | '.join(_COLUMNS.values())} | seeds |",
        f"| --- |{' --- |' * (len(_COLUMNS) + 1)}",
    ]
    for name in VARIANTS:
        mine = [row | _means(row["recalls"]) for row in rows if row["variant"] == name]
        cells = [spread([row[key] for row in mine]) for key in _COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(mine)} |")
    return "\n".join(lines)


def _means(recalls: list[float]) -> dict[str, float]:
    """Return mean recalls of classes in the order of their names: `make_archive` gives this order.

    The first class is the largest.
    """
    return {
        "common_recall": statistics.fmean(recalls[:HALF]),
        "rare_recall": statistics.fmean(recalls[-HALF:]),
    }


if __name__ == "__main__":
    main()
