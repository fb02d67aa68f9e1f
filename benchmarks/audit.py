"""How many mistakes that are planted in the sample `fieldguide audit` finds, beside its peers.

    python benchmarks/audit.py            # half an hour on one core; PEERS: benchmarks/peers.txt
    python benchmarks/audit.py --table    # print the tables of docs/audit.md

Labels: of the photos of train and val, 5 % get another label at random, and as many photos of cats
and dogs the other one of the two. cleanlab gets the same out-of-fold probabilities. They come from
features of the classifier that was trained on these labels, and of EfficientNet-Lite0, pretrained
on ImageNet.

Photos: in a folder of the sample's test photos, 40 of each kind are made dark, bright, blurred or
nearly empty.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from contender import HERE, ROOT, peers_python
from photos import prepared
from PIL import Image, ImageFilter
from recipe import add_row, read_rows

ROWS = Path(__file__).with_suffix(".jsonl")
SHARE = 0.05  # of the labels, for each of the two ways to plant
PAIR = ("cat", "dog")
PRETRAINED = "tf_efficientnet_lite0"  # in timm, and as models/weights/<name>.safetensors
FEATURES = ("trained", "pretrained")
EACH = 40  # planted photos of each kind
# Kinds of planted photos -> names of fieldguide and of CleanVision.
KINDS = {
    "dark": ("dark", "dark"),
    "bright": ("bright", "light"),
    "blurred": ("blurred", "blurry"),
    "empty": ("empty", "low_information"),
}
SCALE = (100_000, 1280, 10)  # photos, features, classes of the speed row


class Planted(NamedTuple):
    """Names of the photos whose labels were changed."""

    random: set[str]
    pair: set[str]


def plant_labels(source: Path, target: Path, *, seed: int) -> Planted:
    """Write the sample with wrong labels in its training folder; their names begin with "w"."""
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(source) as packed:
        names = sorted(packed.namelist())
    label = {name: name.split("/")[2] for name in names if name.split("/")[1] == "train"}
    classes, count = sorted(set(label.values())), round(SHARE * len(label))
    of_pair = [name for name in label if label[name] in PAIR]
    pair = [of_pair[k] for k in rng.choice(len(of_pair), count, replace=False)]
    wrong = {name: PAIR[1 - PAIR.index(label[name])] for name in pair}
    rest = [name for name in label if name not in wrong]
    for k in rng.choice(len(rest), count, replace=False):
        others = [one for one in classes if one != label[rest[k]]]
        wrong[rest[k]] = others[rng.integers(len(others))]
    planted = Planted(set(), set())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in names:
            moved = name
            if name in wrong:
                root, split, _, file = name.split("/")
                moved = f"{root}/{split}/{wrong[name]}/w{file}"
                (planted.pair if name in pair else planted.random).add(moved)
            new.writestr(moved, old.read(name))
    return planted


def label_rows(kind: str, folder: Path, *, seed: int) -> Iterable[dict[str, Any]]:
    """Plant wrong labels and yield a row for each tool.

    Args:
        kind: of FEATURES.
        folder: for everything that is made.
        seed: of planting, training and folds.
    """
    from fieldguide.audit.confident import doubt_labels
    from fieldguide.audit.out_of_fold import draw_folds, out_of_fold
    from fieldguide.core.store import Store

    planted = plant_labels(ROOT / "data/sample.zip", folder / "planted.zip", seed=seed)
    packed = folder / "planted.zip"
    if not (folder / "store").exists():
        prepared(packed, folder / "store", size=32, val_fraction=0.2, near_copies=False)
    store = Store(folder / "store")
    split = store.split("train", "val")
    folds = draw_folds(split.labels, split.sources, folds=5, seed=seed)
    kept = folder / f"{kind}.npy"
    if not kept.exists():
        np.save(kept, _features(kind, store, folder, seed=seed))
    features = np.load(kept)
    start = time.process_time()
    found = out_of_fold(features, split.labels, folds, classes=len(store.classes))
    doubts = doubt_labels(found.probabilities, split.labels)
    seconds = time.process_time() - start
    theirs = _cleanlab(found.probabilities, split.labels, folder)
    common = {
        "features": kind,
        "seed": seed,
        "photos": len(split),
        "oof_acc": float((found.probabilities.argmax(1) == split.labels).mean()),
        "seconds": round(seconds, 1),
    }
    answers = {
        "fieldguide": (doubts.doubtful, doubts.score),
        "cleanlab, self-confidence": (theirs["doubtful"], 1 - theirs["self_confidence"]),
        "cleanlab, normalized margin": (theirs["doubtful"], 1 - theirs["normalized_margin"]),
    }
    for tool, (doubtful, score) in answers.items():
        yield {"what": "labels", **common, "tool": tool} | judge_order(
            doubtful, score, split.sources, planted
        )


def judge_order(
    doubtful: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
    sources: list[str],
    planted: Planted,
) -> dict[str, Any]:
    """Return precision and recall of the doubtful labels, and of the first N of them.

    Those that are not doubtful follow by score.
    """
    wrong = np.array([name in planted.random | planted.pair for name in sources])
    pair = np.array([name in planted.pair for name in sources])
    order = np.lexsort((-score, ~doubtful))
    hits = {n: int(wrong[order[:n]].sum()) for n in (100, 250, int(wrong.sum()))}
    return {
        "planted": int(wrong.sum()),
        "found": int(doubtful.sum()),
        "precision": float(wrong[doubtful].mean()),
        "recall": float(doubtful[wrong].mean()),
        "recall_random": float(doubtful[wrong & ~pair].mean()),
        "recall_pair": float(doubtful[pair].mean()),
        "precision_of_first": {str(n): hit / n for n, hit in hits.items()},
        "recall_of_first": {str(n): hit / int(wrong.sum()) for n, hit in hits.items()},
    }


def _features(kind: str, store: Any, folder: Path, *, seed: int) -> npt.NDArray[np.float32]:
    import torch
    from original_recipe import fit_fieldguide

    from fieldguide.audit.photo_features import (
        network_of_classifier,
        photo_features,
        pretrained_network,
    )
    from fieldguide.core.params import load_params
    from fieldguide.network.bundle import save_bundle

    params = load_params(ROOT / "params.yaml")
    if kind == "trained" and not (folder / "classifier").exists():
        train = params.train.model_copy(update={"seed": seed})
        with contextlib.redirect_stdout(io.StringIO()):
            fitted, _ = fit_fieldguide(store.folder, params.model_copy(update={"train": train}))
        save_bundle(fitted, folder / "classifier")
    if kind == "trained":
        network = network_of_classifier(folder / "classifier")
    else:
        network = pretrained_network(params.model, store, PRETRAINED, f"{PRETRAINED}.safetensors")
    os.environ["DVC_ROOT"] = str(folder)  # features are cached there
    splits = ["train", "val"]
    return photo_features(network, params.model, store, splits, device=torch.device("cpu"))


def _peers(*arguments: str) -> None:
    script = str(HERE / "contenders" / "label_issues.py")
    subprocess.run([peers_python(), script, *arguments], check=True, stdout=subprocess.DEVNULL)


def _cleanlab(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], folder: Path
) -> dict[str, npt.NDArray[Any]]:
    np.savez(folder / "in.npz", probabilities=probabilities, labels=labels)
    _peers("labels", str(folder / "in.npz"), str(folder / "out.npz"))
    return dict(np.load(folder / "out.npz"))


def photo_rows(folder: Path, *, seed: int) -> Iterable[dict[str, Any]]:
    """Spoil photos, and yield a row for each kind and tool."""
    from fieldguide.audit.photo_quality import judge, measure
    from fieldguide.core.store import Store

    spoilt = spoil_photos(ROOT / "data/sample.zip", folder / "photos", seed=seed)
    with zipfile.ZipFile(folder / "photos.zip", "w") as target:
        for file in sorted((folder / "photos").iterdir()):
            target.write(file, f"{file.name.split('_')[0]}/{file.name}")
    store = Store(prepared(folder / "photos.zip", folder / "photo_store", size=32))
    split = store.split("train", "val", "test")
    ours: dict[str, set[str]] = {}
    for kind, row, _, _ in judge(measure(split)):
        ours.setdefault(kind, set()).add(split.sources[row].rpartition("/")[2])
    _peers("photos", str(folder / "photos"), str(folder / "out.json"))
    theirs = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    for kind, (own, other) in KINDS.items():
        for tool, found in (
            ("fieldguide", ours.get(own, set())),
            ("CleanVision", set(theirs[other])),
        ):
            yield {
                "what": "photos",
                "kind": kind,
                "tool": tool,
                "seed": seed,
                "photos": len(split),
                "planted": len(spoilt[kind]),
                "found": len(found),
                "hits": len(found & spoilt[kind]),
                "other_planted": len(found & set().union(*spoilt.values()) - spoilt[kind]),
            }


def spoil_photos(source: Path, folder: Path, *, seed: int) -> dict[str, set[str]]:
    """Write the sample's test photos as PNG, EACH of a kind spoilt; return their names by kind."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    with zipfile.ZipFile(source) as packed:
        names = sorted(name for name in packed.namelist() if name.split("/")[1] == "val")
        chosen = rng.permutation(len(names))[: EACH * len(KINDS)].reshape(len(KINDS), EACH)
        kind_of = {int(k): kind for kind, some in zip(KINDS, chosen, strict=True) for k in some}
        spoilt: dict[str, set[str]] = {kind: set() for kind in KINDS}
        for k, name in enumerate(names):
            image = Image.open(io.BytesIO(packed.read(name))).convert("RGB")
            file = f"{name.split('/')[2]}_{k:04d}.png"
            if k in kind_of:
                image = _spoil(image, kind_of[k])
                spoilt[kind_of[k]].add(file)
            image.save(folder / file)
    return spoilt


def _spoil(image: Image.Image, kind: str) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    if kind == "blurred":
        return image.filter(ImageFilter.GaussianBlur(3))
    changed = {
        "dark": pixels * 0.2,
        "bright": 255 - (255 - pixels) * 0.04,
        "empty": pixels.mean() + (pixels - pixels.mean()) * 0.03,
    }[kind]
    return Image.fromarray(np.rint(changed).astype(np.uint8))


def speed_row() -> dict[str, Any]:
    """Time the linear models and confident learning, with made features."""
    from fieldguide.audit.confident import doubt_labels
    from fieldguide.audit.out_of_fold import draw_folds, out_of_fold

    photos, size, classes = SCALE
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, photos)
    centres = rng.normal(size=(classes, size)).astype(np.float32)
    features = rng.normal(size=(photos, size)).astype(np.float32) * 8
    features += centres[labels]
    start = time.process_time()
    folds = draw_folds(labels, list(map(str, range(photos))), folds=5, seed=0)
    found = out_of_fold(features, labels, folds, classes=classes)
    doubt_labels(found.probabilities, labels)
    seconds = round(time.process_time() - start, 1)
    acc = float((found.probabilities.argmax(1) == labels).mean())
    return {
        "what": "speed",
        "photos": photos,
        "features": size,
        "classes": classes,
        "oof_acc": acc,
        "seconds": seconds,
    }


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the table of labels in docs/audit.md."""
    lines = [
        "| features | tool | found | right | recall: all, random, cat/dog | first 100, 250, 500 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["what"] == "labels":
            recalls = (row[key] for key in ("recall", "recall_random", "recall_pair"))
            cells = [
                row["features"],
                row["tool"],
                f"{row['found']:,}",
                f"{row['precision']:.0%}",
                ", ".join(f"{recall:.0%}" for recall in recalls),
                ", ".join(f"{share:.0%}" for share in row["precision_of_first"].values()),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def photo_table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the table of photos in docs/audit.md."""
    lines = [
        "| planted, 40 each | tool | found | of them planted so | planted as another kind |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["what"] == "photos":
            cells = [row[key] for key in ("kind", "tool", "found", "hits", "other_planted")]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def measured(part: str, folder: Path, *, seed: int) -> Iterable[dict[str, Any]]:
    """Yield the rows of a part."""
    if part == "speed":
        yield speed_row()
    elif part == "photos":
        yield from photo_rows(folder, seed=seed)
    else:
        yield from label_rows(part, folder, seed=seed)


def main() -> None:
    """Measure every part; write each row when it is there."""
    parts = [*FEATURES, "photos", "speed"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="folder for what takes long, to go on after an interruption"
    )
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="print the tables; measure nothing")
    options = parser.parse_args()
    if not options.table:
        from fieldguide.core import compute
        from fieldguide.core.params import load_params

        params = load_params(ROOT / "params.yaml")
        compute.set_up(params.compute.model_copy(update={"threads": 1}), params.model)
        options.out.write_text("", encoding="utf-8")
        with tempfile.TemporaryDirectory() as name:
            folder = options.keep or Path(name)
            folder.mkdir(parents=True, exist_ok=True)
            for part in options.parts:
                for row in measured(part, folder, seed=options.seed):
                    add_row(options.out, row)
                    print(json.dumps(row), flush=True)
    rows = read_rows(options.out)
    print("\n".join([*table(rows), "", *photo_table(rows)]))


if __name__ == "__main__":
    main()
