"""A classifier that takes photos: `fieldguide.load("models/classifier").predict("photo.jpg")`.

PyTorch is imported only where a bundle is loaded: an exported .onnx file needs ONNX Runtime alone,
which starts several times faster.
"""

from __future__ import annotations

import gc
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import BundleError, PhotoError
from fieldguide.prepare.decode import UnusablePhotoError, decode

if TYPE_CHECKING:
    import torch

Photo = str | Path | bytes  # a file's path, or all of its bytes
BATCH = 64  # photos
MAX_BYTES = 1_000_000_000  # of a photo's file


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one photo."""

    probabilities: dict[str, float]  # of each class, the most probable first; they sum to 1

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """That of the most probable class, in [0, 1]."""
        return self.probabilities[self.label]

    def top(self, count: int) -> dict[str, float]:
        """Return the `count` most probable classes, or all if there are fewer."""
        return dict(islice(self.probabilities.items(), count))


class Classifier(ABC):
    """Takes photos of any size and format; safe to use from several threads at once."""

    def __init__(
        self, classes: list[str], *, image_size: int, resize: Literal["crop", "squash"]
    ) -> None:
        """Keep what photos are decoded to.

        Args:
            classes: names, in the order of the scores.
            image_size: pixels of the square that a photo becomes, as in training.
            resize: how it becomes one.
        """
        self.classes, self.image_size, self.resize = classes, image_size, resize

    @abstractmethod
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Classify decoded photos: (B, image_size, image_size, 3) RGB -> (B, K), rows sum to 1."""

    def predict(self, photo: Photo, *, max_pixels: int | None = None) -> Prediction:
        """Classify one photo.

        Args:
            photo: the path of a file, or its bytes; JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP or PPM.
            max_pixels: that it may have; None for what memory allows.

        Raises:
            PhotoError: it cannot be read as a picture, or has more pixels.
        """
        return self.predict_pixels(self.pixels(photo, max_pixels=max_pixels)[None])[0]

    def predict_all(
        self, photos: Iterable[Photo], *, batch_size: int = BATCH
    ) -> Iterator[Prediction | PhotoError]:
        """Classify many photos in batches, decoding on all cores; yield answers in order.

        A photo that cannot be read yields its error in place of an answer, and the rest goes on.
        """
        photos = iter(photos)
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            # The next batch is decoded while this one is classified.
            waiting = self._decode_next(pool, photos, batch_size)
            while waiting:
                decoded = [future.result() for future in waiting]
                waiting = self._decode_next(pool, photos, batch_size)
                pixels = [one for one in decoded if not isinstance(one, PhotoError)]
                answers = iter(self.predict_pixels(np.stack(pixels)) if pixels else [])
                for one in decoded:
                    yield one if isinstance(one, PhotoError) else next(answers)
        finally:  # whoever leaves, by Ctrl-C too, waits for no photo that has not been begun
            pool.shutdown(cancel_futures=True)

    def pixels(
        self, photo: Photo, *, size: int | None = None, max_pixels: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """Decode a photo as `prepare` does: -> (image_size, image_size, 3), RGB.

        Args:
            photo: as in `predict`.
            size: pixels of the square, where it is not for the classifier.
            max_pixels: that the photo may have; None for what memory allows.

        Raises:
            PhotoError: it cannot be read as a picture, or has too many pixels.
        """
        name = "photo" if isinstance(photo, bytes) else str(photo)
        try:
            data = photo if isinstance(photo, bytes) else _read(Path(photo))
            size = size or self.image_size
            return decode(data, size, resize=self.resize, max_pixels=max_pixels)
        except OSError as err:
            raise PhotoError(f"{name}: cannot be read ({err.strerror})") from err
        except UnusablePhotoError as err:
            raise PhotoError(f"{name}: {err.reason} ({err.detail})") from err
        except MemoryError as err:
            raise PhotoError(f"{name}: too large (for this machine's memory)") from err

    def _decode_next(
        self, pool: ThreadPoolExecutor, photos: Iterator[Photo], count: int
    ) -> list[Future[npt.NDArray[np.uint8] | PhotoError]]:
        return [pool.submit(self._pixels_or_error, one) for one in islice(photos, count)]

    def _pixels_or_error(self, photo: Photo) -> npt.NDArray[np.uint8] | PhotoError:
        try:
            return self.pixels(photo)
        except PhotoError as err:
            return err

    def predict_pixels(self, pixels: npt.NDArray[np.uint8]) -> list[Prediction]:
        """Classify what `pixels` gave: (B, image_size, image_size, 3)."""
        rows = self.probabilities(pixels)  # (B, K)
        if not np.isfinite(rows).all():
            raise BundleError("the classifier is damaged: a probability is not a number")
        orders = np.argsort(-rows, axis=1, kind="stable")
        return [
            Prediction({self.classes[k]: float(row[k]) for k in order})
            for row, order in zip(rows, orders, strict=True)
        ]


def _read(path: Path) -> bytes:
    """Read a file that may be a photo; a pipe or device would never end."""
    if path.exists() and not path.is_file():
        raise UnusablePhotoError("unreadable", "not a file")
    if path.stat().st_size > MAX_BYTES:
        raise UnusablePhotoError("too large", f"allowed: {MAX_BYTES:,} bytes")
    return path.read_bytes()


def load(path: str | Path, device: str | torch.device | None = None) -> Classifier:
    """Load a classifier: safetensors and JSON, or an exported ONNX file; neither can run code.

    Args:
        path: the folder of a bundle, as models/classifier, or an .onnx file.
        device: as "cpu" or "cuda:1"; None for a GPU where there is one. Of a bundle alone.

    Raises:
        BundleError: something is missing, damaged, or of another format.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        from fieldguide.inference.onnx_classifier import OnnxClassifier  # noqa: PLC0415

        return OnnxClassifier(path)
    if path.is_file():
        raise BundleError(f"{path}: not a classifier; allowed: its folder, or an .onnx file")
    with _without_collection():
        from fieldguide.inference.torch_classifier import TorchClassifier  # noqa: PLC0415

    return TorchClassifier(path, device)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no garbage: PyTorch's import makes none, and looking takes a tenth of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
