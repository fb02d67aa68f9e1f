"""A classifier in the project's own format, run by PyTorch."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fieldguide.inference.classifier import Classifier, Photo
from fieldguide.network.bundle import load_bundle
from fieldguide.network.preprocessing import to_unit

_SHOWN = 448  # smallest side of the photo in an explanation, in pixels
_TOP = 3  # classes in its caption


class TorchClassifier(Classifier):
    """A classifier loaded from a bundle's folder."""

    can_explain = True

    def __init__(self, folder: Path, device: str | torch.device | None = None) -> None:
        """Load the network.

        Args:
            folder: of the bundle.
            device: as in `fieldguide.load`.

        Raises:
            BundleError: see `load_bundle`.
        """
        self.bundle = load_bundle(folder)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.bundle.net.to(self.device)
        calibration = self.bundle.calibration
        super().__init__(
            self.bundle.classes,
            image_size=self.bundle.image_size,
            resize=self.bundle.resize,
            calibrated=calibration is not None,
            min_confidence=calibration.min_confidence if calibration else None,
        )

    @torch.inference_mode()
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Classify decoded photos: (B, S, S, 3) RGB -> (B, K)."""
        scores = self.bundle.net(self._network_input(pixels))  # -> (B, K)
        return np.asarray(self.bundle.probabilities(scores.double()).cpu().numpy())

    def explain(self, photo: Photo, label: str | None = None) -> bytes:
        """Draw which pixels of a photo speak for a class; see `Classifier.explain`."""
        # Here, because these import Matplotlib, which takes a second.
        from fieldguide.figures.canvas import short  # noqa: PLC0415
        from fieldguide.figures.explanation import explain, explanation_figure  # noqa: PLC0415

        if label is not None and label not in self.classes:
            raise ValueError(f"found class {label!r}; allowed: {', '.join(self.classes)}")
        pixels = self.pixels(photo)
        prediction = self.predict_pixels(pixels[None])[0]
        label = prediction.label if label is None else label
        # A copy, because hooks change the network while it is explained.
        net, image = copy.deepcopy(self.bundle.net), self._network_input(pixels[None])
        explanation = explain(net, image, self.classes.index(label))
        shown = self.pixels(photo, size=max(_SHOWN, self.image_size))
        top = prediction.top(_TOP).items()
        caption = "     ".join(f"{short(name)} {value:.1%}" for name, value in top)
        picture = io.BytesIO()
        figure = explanation_figure(shown, explanation, label=short(label), caption=caption)
        figure.savefig(picture, format="png", dpi=110, facecolor="white")
        return picture.getvalue()

    def _network_input(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(B, S, S, 3) -> (B, 3, s, s), normalised."""
        return self.bundle.preprocessing(to_unit(torch.tensor(pixels, device=self.device)))
