"""Compare the course work's recipe with fieldguide's `train` on the same photos.

    make venv peers && . .venv/bin/activate && dvc repro
    python benchmarks/original_recipe.py --epochs 30 --seeds 0 1 2

The course work's recipe is the best of its 480 sweep trials: `ImageFolder` with transforms per
photo, a Lightning Trainer, 5 layers of 128 filters, GELU, batch norm, dense 512, dropout 0.3, Adam
at a constant 1e-4, batches of 64, no augmentation. Both recipes train on the train split of
data/prepared and are tested once on its test split, with the weights of the epoch that had the best
val/acc. fieldguide may stop early. The photos for `ImageFolder` are unpacked before, and neither
that nor `prepare`, which takes seconds, is timed. Each training has its own process;
the course work's has Lightning, from the peers' environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contender import peers_python
from epoch_lines import EpochLines

if TYPE_CHECKING:
    from fieldguide.core.params import Params
    from fieldguide.network.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
Reached = Callable[[int, float], None]


def unpack(archive: Path, store: Path, target: Path) -> None:
    """Write the photos of the store's splits for `ImageFolder`: <split>/<class>/<row>.jpg."""
    from fieldguide.core.store import Store
    from fieldguide.prepare.archive import open_archive

    with open_archive(archive) as opened:
        members = {member.name: member for member in opened.members}
        opened_store = Store(store)
        for name in ("train", "val", "test"):
            split = opened_store.split(name)
            for row, (source, label) in enumerate(zip(split.sources, split.labels, strict=True)):
                folder = target / name / opened_store.classes[label]
                folder.mkdir(parents=True, exist_ok=True)
                photo = folder / f"{row:06d}{Path(source).suffix}"
                photo.write_bytes(opened.read(members[source]))


def train_original(
    photos: Path, *, size: int, epochs: int, seed: int, reached: Reached | None = None
) -> dict[str, float]:
    """Train and test the course work's recipe; return seconds, epochs and accuracies.

    Args:
        photos: folder that `unpack` wrote.
        size: pixels.
        epochs: number of epochs.
        seed: of weights, order and dropout.
        reached: called after every epoch with its number, from 1, and its validation accuracy.
    """
    import lightning as L
    from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
    from original_loop import OriginalModule, original_loader, original_net

    L.seed_everything(seed, verbose=False)
    loaders = {name: original_loader(photos, name, size=size) for name in ("train", "val", "test")}

    def tell(trainer: L.Trainer, _: L.LightningModule) -> None:
        if reached is not None:
            reached(trainer.current_epoch + 1, float(trainer.callback_metrics["val_acc"]))

    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_acc", mode="max")
        trainer = L.Trainer(
            max_epochs=epochs,
            callbacks=[best, LambdaCallback(on_train_epoch_end=tell)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = time.perf_counter()
        model = OriginalModule(original_net(size, len(loaders["train"].dataset.classes)))  # type: ignore[attr-defined]
        trainer.fit(model, loaders["train"], loaders["val"])
        seconds = time.perf_counter() - start
        score = trainer.test(model, loaders["test"], ckpt_path="best", verbose=False)[0]
    return {
        "seconds": seconds,
        "epochs": trainer.current_epoch,
        "val_acc": float(best.best_model_score or 0),
        "test_acc": score["test_acc"],
    }


def train_fieldguide(
    store: Path, *, epochs: int | None, seed: int, reached: Reached | None = None
) -> dict[str, float]:
    """Train and test params.yaml's recipe; return seconds, epochs and accuracies.

    Args:
        store: folder of the prepared store.
        epochs: number of epochs; None for params.yaml's.
        seed: of weights, order, augmentation and dropout.
        reached: called after every epoch with its number, from 1, and its validation accuracy.
    """
    from fieldguide.core.params import load_params
    from fieldguide.core.store import Store
    from fieldguide.evaluation.predict import predict_split

    params = load_params(ROOT / "params.yaml")
    changed = {"epochs": epochs or params.train.epochs, "seed": seed}
    params = params.model_copy(update={"train": params.train.model_copy(update=changed)})
    bundle, row = fit_fieldguide(store, params, reached=reached)
    test = Store(store).split("test")
    hits = predict_split(bundle, test).argmax(1) == test.labels
    return {**row, "val_acc": bundle.val_acc or 0.0, "test_acc": float(hits.mean())}


def fit_fieldguide(
    store: Path, params: Params, *, reached: Reached | None = None
) -> tuple[Bundle, dict[str, float]]:
    """Run `train` in a temporary folder; return the classifier, and the seconds and epochs."""
    from fieldguide.core.store import Store
    from fieldguide.network.bundle import load_bundle
    from fieldguide.training.loop import train
    from fieldguide.training.outputs import Outputs

    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(*(Path(folder) / name for name in Outputs._fields))
        os.environ["DVC_ROOT"] = folder  # the checkpoint of an interrupted training goes there
        start = time.perf_counter()
        with redirect_stdout(EpochLines(reached)) if reached else nullcontext():
            fitted = train(params.train, params.model, store=Store(store), outputs=outputs)
        seconds = time.perf_counter() - start
        epochs = int(fitted["epochs_run"])
        return load_bundle(outputs.bundle), {"seconds": seconds, "epochs": epochs}


def main() -> None:
    """Run both recipes in turn for every seed; print the results and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--archive", type=Path, default=ROOT / "data/sample.zip")
    parser.add_argument("--store", type=Path, default=ROOT / "data/prepared")
    parser.add_argument("--epochs", type=int, default=30, help="of the course work's recipe")
    parser.add_argument("--our-epochs", type=int, help="of fieldguide; default: params.yaml's")
    parser.add_argument("--only", choices=("original", "fieldguide"), help="run only one of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    # recipe|photos|seed of the one training that this process runs
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = json.loads((args.store / "dataset.json").read_text(encoding="utf-8"))["image_size"]
    if args.one:
        recipe, photos, seed = args.one.split("|")
        if recipe == "original":
            row = train_original(Path(photos), size=size, epochs=args.epochs, seed=int(seed))
        else:
            row = train_fieldguide(args.store, epochs=args.our_epochs, seed=int(seed))
        print("\n" + json.dumps(row))
        return

    rows: list[dict[str, Any]] = []
    photos = Path(tempfile.mkdtemp(prefix="fieldguide-"))
    try:
        unpack(args.archive, args.store, photos)
        for seed in args.seeds:
            for recipe in [args.only] if args.only else ["original", "fieldguide"]:
                python = peers_python() if recipe == "original" else sys.executable
                command = [python, __file__, "--store", str(args.store)]
                command += ["--epochs", str(args.epochs), "--one", f"{recipe}|{photos}|{seed}"]
                command += ["--our-epochs", str(args.our_epochs)] if args.our_epochs else []
                env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
                done = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=env
                )
                row = {"recipe": recipe, "seed": seed} | json.loads(done.stdout.splitlines()[-1])
                rows.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    finally:
        shutil.rmtree(photos)
    summarize(rows)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def summarize(rows: list[dict[str, Any]]) -> None:
    """Print each recipe's median seconds and mean accuracy, and the ratio of the seconds."""
    seconds = {}
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        mine = [row for row in rows if row["recipe"] == recipe]
        seconds[recipe] = statistics.median(row["seconds"] for row in mine)
        test = [row["test_acc"] for row in mine]
        spread = f" ± {statistics.stdev(test):.2%}" if len(test) > 1 else ""
        mean = f"{statistics.mean(test):.2%}"
        print(f"{recipe:>10}: median {seconds[recipe]:.0f} s, test {mean}{spread}")
    if len(seconds) == 2:  # noqa: PLR2004
        ratio = seconds["fieldguide"] / seconds["original"]
        print(f"fieldguide's train takes {ratio:.2f} of the time")


if __name__ == "__main__":
    main()
