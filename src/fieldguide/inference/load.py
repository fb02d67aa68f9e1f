"""Load a classifier: `fieldguide.load("models/classifier").predict("photo.jpg")`.

PyTorch is imported only to load a folder. An .onnx file needs ONNX Runtime alone, which starts
several times faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fieldguide.core.errors import BundleError
from fieldguide.inference.classifier import Classifier

if TYPE_CHECKING:
    import torch


def load(path: str | Path, device: str | torch.device | None = None) -> Classifier:
    """Load a classifier from a folder or an exported ONNX file; neither can run code.

    Args:
        path: a classifier's folder, such as models/classifier, or an .onnx file.
        device: such as "cpu" or "cuda:1"; None uses a GPU if there is one. An .onnx file always
            runs on the CPU.

    Raises:
        BundleError: something is missing, damaged, or of another format.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        from fieldguide.inference.onnx_classifier import OnnxClassifier  # noqa: PLC0415

        return OnnxClassifier(path)
    if path.is_file():
        raise BundleError(
            f"{path}: not a classifier; allowed: a classifier's folder, or an .onnx file"
        )
    from fieldguide.inference.torch_classifier import TorchClassifier  # noqa: PLC0415

    return TorchClassifier(path, device)
