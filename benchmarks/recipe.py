"""Measure what each knob of the recipe does: one change at a time, several seeds, the same photos.

    make venv && . .venv/bin/activate && dvc repro
    python benchmarks/recipe.py --seeds 0 1 2 --workers 2    # hours; resumes after an interruption
    python benchmarks/recipe.py --table                      # write the tables of docs/recipe.md

Every variant is BEFORE, the default from before whitening, with changes of its own; the table has
those that were measured. Each training is a process of one thread and is tested once on
data/prepared's test split. Its result is a line of benchmarks/recipe.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "benchmarks/recipe.jsonl"
PAGE = ROOT / "docs/recipe.md"
REFERENCE = "before"
BEFORE = {
    "model.name": "cnn",
    "model.weights": "none",
    "model.finetune": "full",
    "model.input_size": "auto",
    "model.conv_layers": 5,
    "model.first_layer_filters": 32,
    "model.filter_org": 2.0,
    "model.max_filters": 8192,
    "model.whitening": False,
    "model.kernel_size": 3,
    "model.activation": "relu",
    "model.batch_norm": True,
    "model.dropout": 0.3,
    "train.patience": 5,
    "train.optimizer": "adamw",
    "train.weight_decay": 0.05,
    "train.use_augmentation": True,
    "train.crop_area": 0.35,
    "train.color_jitter": 0.1,
    "train.train_on_val": False,
    "train.precision": "32",
    "train.compile": False,
    "model.filters": "auto",
    "model.residual_units": 0,
    "model.norm_after_activation": False,
    "model.pooling": "flatten",
    "model.num_neurons_dense": 0,
    "train.epochs": 24,
    "train.batch_size": 64,
    "train.schedule": "one_cycle",
    "train.warmup": 0.3,
    "train.learning_rate": 2e-3,
    "train.gradient_clipping": 0.0,
    "train.ema_decay": 0.0,
    "train.label_smoothing": 0.1,
    "train.crop": "shift",
    "train.random_erasing": 0.0,
    "train.mixup": 0.0,
    "train.cutmix": 0.0,
    "train.start_size": 1.0,
}
# What docs/recipe.md recommends for photos of 64 pixels and more, and for long trainings of them.
IMAGENETTE = {"model.filters": [16, 64, 128, 256, 256], "model.dropout": 0.1}
MIXING = {"train.mixup": 0.2, "train.cutmix": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "whitening": {"model.whitening": True},
    "at most 256 filters": {"model.max_filters": 256},
    "learning rate 4e-3": {"train.learning_rate": 4e-3},
    "a dense layer": {"model.num_neurons_dense": 512},
    "4 blocks": {"model.conv_layers": 4},
    "4 blocks, average pooling": {"model.conv_layers": 4, "model.pooling": "average"},
    "4 blocks, average pooling, growing photos": {
        "model.conv_layers": 4,
        "model.pooling": "average",
        "train.start_size": 0.5,
    },
    "batch norm after the activation": {"model.norm_after_activation": True},
    "filters 64, 128, 128, 256, 256": {"model.filters": [64, 128, 128, 256, 256]},
    "kernels 5, 3, 3, 3, 3": {"model.kernel_size": [5, 3, 3, 3, 3]},
    "residual units": {"model.residual_units": 1},
    "residual units, half the filters": {
        "model.residual_units": 1,
        "model.first_layer_filters": 16,
    },
    "timm's resnet10t, 64 pixels": {"model.name": "resnet10t", "model.input_size": 64},
    "timm's resnetblur18, 64 pixels": {"model.name": "resnetblur18", "model.input_size": 64},
    "constant rate, 5e-4": {"train.schedule": "constant", "train.learning_rate": 5e-4},
    "cosine with warm-up": {"train.schedule": "cosine", "train.warmup": 0.05},
    "no augmentation": {"train.use_augmentation": False},
    "random-resized crop": {"train.crop": "resized"},
    "random erasing": {"train.random_erasing": 0.25},
    "mixup": {"train.mixup": 0.2},
    "CutMix": {"train.cutmix": 1.0},
    "no label smoothing": {"train.label_smoothing": 0.0},
    "EMA of weights": {"train.ema_decay": 0.99},
    "gradient clipping": {"train.gradient_clipping": 1.0},
    "Muon": {"train.optimizer": "muon"},
    "batches of 128": {"train.batch_size": 128},
    "trained on val too": {"train.train_on_val": True},
    "params.yaml": dict.fromkeys(BEFORE),  # None: the value that params.yaml has now
}


def params_of(image_size: int, changes: dict[str, Any]) -> Any:
    """Return params.yaml with changes, checked; the value None keeps what params.yaml has."""
    from fieldguide.core.params import Params, load_params

    raw = load_params(ROOT / "params.yaml").asked
    raw["data"]["image_size"] = image_size
    for key, value in changes.items():
        section, name = key.split(".")
        assert name in raw[section], key
        if value is not None:
            raw[section][name] = value
    return Params.model_validate(raw)


def train_one(store: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Train and test params.yaml with changes; return seconds, epochs and accuracies."""
    from original_recipe import fit_fieldguide

    from fieldguide.core.store import Store
    from fieldguide.evaluation.predict import predict_split

    cpu = time.process_time()
    prepared = Store(store)
    bundle, fitted = fit_fieldguide(store, params_of(prepared.image_size, changes))
    cpu = time.process_time() - cpu
    test = prepared.split("test")
    plain = predict_split(bundle, test)
    averaged = plain + predict_split(bundle, test, mirrored=True)
    return {
        "seconds": round(fitted["seconds"], 1),
        "cpu_seconds": round(cpu, 1),
        "epochs_run": fitted["epochs"],
        "val_acc": bundle.val_acc,
        "test_acc": float((plain.argmax(1) == test.labels).mean()),
        "flip_averaged_acc": float((averaged.argmax(1) == test.labels).mean()),
    }


def main() -> None:
    """Run the trainings that are missing, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=ROOT / "data/prepared")
    parser.add_argument("--data", default="sample", help="name of the photos in the table")
    parser.add_argument("--epochs", type=int, help="instead of the variant's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=JSON", help="for all variants")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--table", action="store_true", help="write docs/recipe.md and stop")
    # JSON: the changes of the one training that this process runs
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("\n" + json.dumps(train_one(args.store, json.loads(args.one))))
        return
    if args.table:
        write_tables()
        return
    common = dict(one.split("=", 1) for one in args.set)
    common = {key: json.loads(value) for key, value in common.items()}
    common |= {"train.epochs": args.epochs} if args.epochs is not None else {}
    planned = [plan(args, name, seed, common) for seed in args.seeds for name in args.only]
    known = [_identity(row) for row in read_rows(ROWS)]
    todo = [work for work in planned if _identity(work) not in known]
    print(f"{len(planned) - len(todo)} trainings done, {len(todo)} to run", flush=True)
    with ThreadPoolExecutor(args.workers) as pool:
        done = list(pool.map(lambda work: measure(args.store, work), todo))
    if not all(done):
        sys.exit(f"{done.count(False)} trainings failed; run the same command to try them again")


def plan(
    args: argparse.Namespace, variant: str, seed: int, common: dict[str, Any]
) -> dict[str, Any]:
    """Describe one training: everything its result depends on, except code and machine."""
    description = (args.store / "dataset.json").read_bytes()
    changes = BEFORE | VARIANTS[variant] | common | {"train.seed": seed}
    size = json.loads(description)["image_size"]
    params = params_of(size, changes)
    return {
        "data": args.data,
        "dataset": hashlib.sha256(description).hexdigest()[:12],
        "size": size,
        "epochs": params.train.epochs,
        "set": common,
        "variant": variant,
        "seed": seed,
        "params": {"model": params.model.model_dump(), "train": params.train.model_dump()},
    }


def measure(store: Path, work: dict[str, Any]) -> bool:
    """Train in a new process and append the result to ROWS; return False if it failed."""
    changes = {
        f"{section}.{key}": value
        for section, values in work["params"].items()
        for key, value in values.items()
    }
    command = [sys.executable, __file__, "--store", str(store), "--one", json.dumps(changes)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        print(f"{work['variant']}, seed {work['seed']}: failed", file=sys.stderr)
        return False
    row = work | json.loads(done.stdout.splitlines()[-1])
    add_row(ROWS, row)
    print(f"{row['variant']:<34} seed {row['seed']}  val {row['val_acc'] or 0:.1%}", flush=True)
    return True


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("dataset", "params")}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the results of all trainings so far, one from each line."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def add_row(file: Path, row: dict[str, Any]) -> None:
    """Append the result of a training."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(row) + "\n")


def write_tables() -> None:
    """Write a table for each data set to docs/recipe.md."""
    from table import insert

    rows = read_rows(ROWS)
    # Trainings without a REFERENCE to compare with have no table; the page shows them elsewhere.
    kinds = {
        json.dumps([row[key] for key in _KIND]): row for row in rows if row["variant"] == REFERENCE
    }
    tables = [
        table(kind, [row for row in rows if all(row[key] == kind[key] for key in _KIND)])
        for kind in kinds.values()
    ]
    if not insert(PAGE, "\n\n".join(tables), "recipe"):
        sys.exit(f"{PAGE}: has no <!-- recipe -->")


def table(kind: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return each variant's mean over its seeds, and its mean difference from REFERENCE.

    Differences are taken between trainings of the same seed.

    Args:
        kind: one row, for the title.
        rows: all rows of the same photos; of two with equal variant and seed the last counts.
    """
    # Keyed by params, because variants with equal params share their trainings.
    trained: dict[str, dict[int, dict[str, Any]]] = {}
    recipe_of = {}
    for row in rows:
        recipe_of[row["variant"]] = _recipe(row)
        trained.setdefault(_recipe(row), {})[row["seed"]] = row
    found = {variant: trained[recipe] for variant, recipe in recipe_of.items()}
    base = found.get(REFERENCE, {})
    lines = [
        f"{kind['data']}, {kind['size']} pixels"
        + "".join(f", {key} {value}" for key, value in kind["set"].items()),
        "",
        f"| changed | {' | '.join(_COLUMNS)} |",
        "| --- " * (len(_COLUMNS) + 1) + "|",
    ]
    for name in VARIANTS:
        mine = found.get(name, {})
        pairs = [(mine[seed], base[seed]) for seed in mine if seed in base]
        if not pairs:
            continue
        ones = [one for one, _ in pairs]
        cost = statistics.mean(a["cpu_seconds"] / b["cpu_seconds"] for a, b in pairs)
        cells = [str(ones[0]["epochs"])]
        for key in ("val_acc", "test_acc"):
            cells.append(spread([one[key] for one in ones]))
            changes = [a[key] - b[key] for a, b in pairs if a[key] is not None]
            cells.append("" if name == REFERENCE else spread(changes, sign="+"))
        cells.append(spread([o["flip_averaged_acc"] - o["test_acc"] for o in ones], sign="+"))
        cells += [f"× {cost:.2f}", str(len(pairs))]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _recipe(row: dict[str, Any]) -> str:
    """Return a row's params without the seed."""
    train = {key: value for key, value in row["params"]["train"].items() if key != "seed"}
    return json.dumps([row["params"]["model"], train], sort_keys=True)


_COLUMNS = (
    *("epochs", "val", "val against before", "test", "test against before"),
    *("flip-averaged against test", "CPU time", "seeds"),
)
_KIND = ("data", "dataset", "size", "set")


def spread(values: list[float | None], sign: str = "") -> str:
    """Return mean ± standard deviation over seeds, in percent."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{100 * statistics.mean(known):{sign}.1f}"
    return f"{mean} ± {100 * statistics.stdev(known):.1f}" if len(known) > 1 else mean


if __name__ == "__main__":
    main()
