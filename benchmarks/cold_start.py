"""Seconds until a command answers or a training has its first batch.

    python benchmarks/cold_start.py [--quick]

Every figure is of a whole process, with files in the disk's cache and compiled bytecode. `dvc
repro` runs in a copy of this project with a tiny archive; the other contender is a project of one
stage that does nothing, with the same DVC settings. `predict` classifies one photo; the other
contender is ten lines of PyTorch (ten_lines.py) with the same weights. `train` starts in that copy
of the project and ends with its first batch (first_batch.py); the other contender imports PyTorch.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import torch
from contender import ROOT
from safetensors.torch import save_file
from side_by_side import OURS, Row, in_turn
from small_project import BIN, empty_project, run, small_project

from fieldguide.core.params import CNNParams
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle, save_bundle
from fieldguide.network.preprocessing import Preprocessing

WARM = 2  # runs of each contender that are not counted
# The network of ten_lines.py.
CNN = CNNParams(
    conv_layers=5,
    first_layer_filters=32,
    filter_org=2.0,
    max_filters=8192,
    filters="auto",
    kernel_size=3,
    residual_units=0,
    whitening=False,
    activation="relu",
    batch_norm=True,
    norm_after_activation=False,
    pooling="flatten",
    num_neurons_dense=512,
    dropout=0.0,
)
CLASSES = [f"class {k}" for k in range(10)]
TEN_LINES, BARE = "ten lines of PyTorch", "dvc repro, one idle stage"
TORCH = "import torch"


def rows(*, quick: bool) -> list[Row]:
    """Measure all commands."""
    repeats = 3 if quick else 11
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = small_project(folder / "ours")
        return [
            help_row(repeats),
            repro_row(project, folder, repeats),
            predict_row(folder, repeats),
            train_row(project, repeats),
        ]


def help_row(repeats: int) -> Row:
    """`fieldguide --help`."""
    measured = _warm({OURS: (ROOT, [str(BIN / "fieldguide"), "--help"])}, repeats)
    limit = "Python's start and Typer's import"
    return Row("fieldguide --help", "s", measured, None, 0.3, at_least=False, limit=limit)


def repro_row(project: Path, folder: Path, repeats: int) -> Row:
    """`dvc repro` with nothing to do."""
    repro = [str(BIN / "dvc"), "repro"]
    commands = {
        OURS: (project, repro),
        BARE: (empty_project(folder / "bare"), repro),
    }
    limit = (
        "DVC reads dvc.yaml and dvc.lock twice, and builds, locks and looks up every dep and out, "
        "in Python"
    )
    measured = _warm(commands, repeats)
    work = "dvc repro, nothing to do"
    return Row(work, "s", measured, BARE, 1.2, at_least=False, limit=limit)


def predict_row(folder: Path, repeats: int) -> Row:
    """`fieldguide predict` of one photo."""
    classifier, weights, photo = _write_classifier(folder)
    script = str(Path(__file__).with_name("ten_lines.py"))
    ours = [str(BIN / "fieldguide"), "predict", "--model", str(classifier), str(photo)]
    commands = {
        OURS: (ROOT, ours),
        TEN_LINES: (ROOT, [str(BIN / "python"), script, str(weights), str(photo)]),
    }
    limit = "PyTorch's import"
    measured = _warm(commands, repeats)
    work = "predict of one photo, 32 pixels"
    return Row(work, "s", measured, TEN_LINES, 1.3, at_least=False, limit=limit)


def train_row(project: Path, repeats: int) -> Row:
    """`train` until its first batch, of params.yaml's network on a tiny archive."""
    script = str(Path(__file__).with_name("first_batch.py"))
    python = str(BIN / "python")
    commands = {
        OURS: (project, [python, script]),
        TORCH: (project, [python, "-c", "import torch, os; os._exit(0)"]),
    }
    limit = "PyTorch's import; then that of pydantic, and hashes of code and data"
    measured = _warm(commands, repeats)
    work = "train, from start to the first batch"
    return Row(work, "s", measured, TORCH, 1.4, at_least=False, limit=limit)


def _warm(commands: dict[str, tuple[Path, list[str]]], repeats: int) -> dict[str, list[float]]:
    for _ in range(WARM):
        for folder, command in commands.values():
            run(*command, folder=folder)
    contenders = {
        name: partial(run, *command, folder=folder) for name, (folder, command) in commands.items()
    }
    return in_turn(contenders, repeats)


def _write_classifier(folder: Path) -> tuple[Path, Path, Path]:
    """Write random weights for `predict` and for ten_lines.py, and a photo.

    Returns:
        The classifier's folder, the weights' file and the photo.
    """
    torch.manual_seed(0)
    net = build(CNN, input_size=32, num_classes=len(CLASSES))
    preprocessing = Preprocessing(32, "bilinear", mean=[0.5] * 3, std=[0.25] * 3)
    bundle = Bundle(
        net=net,
        architecture=CNN,
        classes=CLASSES,
        image_size=32,
        resize="squash",
        preprocessing=preprocessing,
        val_acc=0.1,
        started_from="none",
    )
    save_bundle(bundle, folder / "classifier")
    save_file(_numbered(net), folder / "weights.safetensors")
    photo = folder / "photo.jpg"
    with zipfile.ZipFile(ROOT / "data" / "sample.zip") as sample:
        first = next(name for name in sample.namelist() if name.endswith(".jpg"))
        photo.write_bytes(sample.read(first))
    return folder / "classifier", folder / "weights.safetensors", photo


def _numbered(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights, named by the position of their layer as in a plain `nn.Sequential`."""
    layers = [layer for layer in net.modules() if not list(layer.children())]
    layers = [layer for layer in layers if not isinstance(layer, torch.nn.Dropout)]
    return {
        f"{k}.{name}": value
        for k, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="3 repeats instead of 11")
    for row in rows(quick=parser.parse_args().quick):
        print(f"{row.work}: {row.ratio:.2f}, bound {row.bound}: {'met' if row.met else 'missed'}")


if __name__ == "__main__":
    main()
