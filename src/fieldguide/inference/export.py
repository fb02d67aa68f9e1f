"""Export a trained classifier as one ONNX file, for programs without fieldguide.

The file takes decoded pixels and gives probabilities, so that no program has to repeat the
preprocessing. It is written only if it gives the same answers as the original.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import fieldguide
from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.files import aside
from fieldguide.core.store import Store
from fieldguide.inference.answers import find_photos, no_photo
from fieldguide.inference.classifier import Classifier
from fieldguide.inference.onnx_classifier import (
    FORMAT,
    INSTALL,
    METADATA,
    PIXELS,
    PROBABILITIES,
    OnnxClassifier,
)
from fieldguide.inference.torch_classifier import TorchClassifier
from fieldguide.network.bundle import Bundle
from fieldguide.network.preprocessing import to_unit

PREPARED = Path("data/prepared")
MAX_PHOTOS = 256  # whose answers are compared
TOLERANCE = 1e-3  # of a probability; float32 rounds to some 1e-6


class FromPixels(nn.Module):
    """The network with its preprocessing and its temperature, as it is exported."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.net, self.probabilities = bundle.net, bundle.probabilities
        # The same code as in training. ONNX's antialiased Resize, which it becomes, is within 0.004
        # grey levels of PyTorch's at all sizes that were tried, 16 to 512 pixels, bicubic too.
        self.preprocessing = bundle.preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities: (B, S, S, 3) uint8 RGB -> (B, K) float32, rows sum to 1."""
        return self.probabilities(self.net(self.preprocessing(to_unit(pixels))))


def export(model: Path, out: Path, *, photos: Path | None = None) -> None:
    """Write a classifier as an ONNX file, after comparing its answers with the original's.

    Args:
        model: the folder of a bundle.
        out: the file; its name ends in .onnx.
        photos: folder of the photos to compare on; None for the prepared test split.

    Raises:
        FieldguideError: there are no photos to compare on, PyTorch cannot export this network, or
            the answers differ. Nothing is written then.
    """
    if not model.is_dir():
        raise FieldguideError(f"--model: found {model}; allowed: a classifier's folder")
    if out.suffix != ".onnx":
        raise FieldguideError(f"--output: found {out}; allowed: a name ending in .onnx")
    original = TorchClassifier(model, device="cpu")
    pixels = pixels_to_compare(original, photos)
    with aside(out) as partial:
        write_onnx(original.bundle, partial)
        difference = compare(original, OnnxClassifier(partial), pixels)
    print(
        f"{len(pixels):,} photos compared: each has the same most probable class; the largest "
        f"difference of a probability is {difference:.1g}"
    )
    print(printable(f"Use    fieldguide predict --model {shlex.quote(str(out))} photo.jpg"))


def pixels_to_compare(classifier: Classifier, folder: Path | None) -> npt.NDArray[np.uint8]:
    """Read up to MAX_PHOTOS decoded photos: -> (N, S, S, 3).

    Args:
        classifier: decodes the photos of a folder.
        folder: of photos; None for the prepared test split.

    Raises:
        FieldguideError: there are none, or one cannot be read.
    """
    if folder is not None:
        files, skipped = find_photos([folder])
        if not files:
            raise no_photo(f"--photos {folder}", skipped)
        return np.stack([classifier.pixels(files[k]) for k in _spread(len(files))])
    allowed = (
        f"allowed: a store with photos of {classifier.image_size} pixels; run `dvc repro prepare` "
        "or give --photos FOLDER"
    )
    if not (PREPARED / "dataset.json").exists():
        raise FieldguideError(f"{PREPARED}: missing, but export compares answers on it; {allowed}")
    store = Store(PREPARED)
    if store.image_size != classifier.image_size:
        raise FieldguideError(f"{PREPARED}: found photos of {store.image_size} pixels; {allowed}")
    test = store.split("test")
    return test.images(_spread(len(test)))


def _spread(count: int) -> npt.NDArray[np.int64]:
    """Choose at most MAX_PHOTOS indices below `count`, spread evenly from the first to the last."""
    return np.linspace(0, count - 1, min(count, MAX_PHOTOS)).round().astype(np.int64)


def compare(original: Classifier, exported: Classifier, pixels: npt.NDArray[np.uint8]) -> float:
    """Compare the answers for decoded photos: (N, S, S, 3), N at least 1.

    Returns:
        The largest difference of a probability.

    Raises:
        FieldguideError: the most probable class differs for a photo, or a probability by more than
            TOLERANCE.
    """
    first, second = original.probabilities(pixels), exported.probabilities(pixels)  # (N, K)
    # One photo by itself too: a graph may have fixed the size of the batch it was traced with.
    single = exported.probabilities(pixels[:1])
    difference = float(max(np.abs(first - second).max(), np.abs(first[:1] - single).max()))
    others = int((first.argmax(axis=1) != second.argmax(axis=1)).sum())
    # Not `difference > TOLERANCE`, which is false for a NaN.
    if others or not difference <= TOLERANCE:
        raise FieldguideError(
            f"the exported classifier answers differently: found another class for {others} of "
            f"{len(pixels)} photos and a largest difference of a probability of {difference:.2g}; "
            f"allowed: 0 photos and {TOLERANCE:g}; nothing was written"
        )
    return difference


def write_onnx(bundle: Bundle, path: Path) -> None:
    """Write an ONNX file that holds the network, its preprocessing and a description.

    Raises:
        FieldguideError: a package is missing, or PyTorch cannot export this network.
    """
    try:
        import onnxruntime  # noqa: F401, PLC0415 - an extra
        import onnxscript  # noqa: F401, PLC0415
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # noqa: PLC0415
    except ImportError as err:
        raise FieldguideError(f"an export to ONNX needs more packages ({err}); {INSTALL}") from err
    size = bundle.image_size
    # Two photos: exporters take the size of a batch of one for a constant.
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        program = torch.onnx.export(
            FromPixels(bundle).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={PIXELS: {0: torch.export.Dim("batch", min=1)}},
            input_names=[PIXELS],
            output_names=[PROBABILITIES],
            verbose=False,
        )
        assert program is not None  # None comes only from the older exporter
        ClearMetadataAndDocStringPass()(program.model)  # the exporter noted paths of this machine
        program.model.producer_name = "fieldguide"
        program.model.producer_version = fieldguide.__version__
        program.model.doc_string = (
            f"Photo classifier. {PIXELS}: (batch, {size}, {size}, 3) uint8, RGB squares of a photo "
            f"({bundle.resize}). {PROBABILITIES}: (batch, {len(bundle.classes)}) float32, "
            f"calibrated if the metadata '{METADATA}' has a calibration; names of the classes and "
            "min_confidence, below which an answer is unsure, are there too."
        )
        program.model.metadata_props[METADATA] = _description(bundle)
        path.write_bytes(program.model_proto.SerializeToString(deterministic=True))
    # Nearly anything is raised for a network that the exporter cannot follow, or above ONNX's 2 GB.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise FieldguideError(f"PyTorch cannot export this network ({lines[0]})") from err


def _description(bundle: Bundle) -> str:
    """Describe the classifier in JSON: what is needed to use it, and where it comes from."""
    return json.dumps(
        {
            "format": FORMAT,
            "classes": bundle.classes,
            "image_size": bundle.image_size,
            "resize": bundle.resize,
            "architecture": bundle.name,
            "val_acc": bundle.val_acc,
            "calibration": asdict(bundle.calibration) if bundle.calibration else None,
        }
    )
