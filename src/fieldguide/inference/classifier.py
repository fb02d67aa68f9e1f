"""What every classifier does with photos, whatever runs its network."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import BundleError, PhotoError
from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.folder import read_file
from fieldguide.prepare.member import UnreadableMemberError

Photo = str | Path | bytes  # the path of a file, or the bytes of one
BATCH = 64  # photos


@dataclass(frozen=True)
class Prediction:
    """The classes of one photo with their probabilities."""

    probabilities: dict[str, float]  # of every class, the most probable first; the sum is 1

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Probability of the most probable class, in [0, 1]."""
        return self.probabilities[self.label]

    def top(self, count: int) -> dict[str, float]:
        """Return the `count` most probable classes, or all if there are fewer."""
        return dict(islice(self.probabilities.items(), count))


class Classifier(ABC):
    """Classifies photos of any size and format; several threads may use it at once."""

    can_explain = False  # True if `explain` works

    def __init__(
        self,
        classes: list[str],
        *,
        image_size: int,
        resize: Literal["crop", "squash"],
        calibrated: bool = False,
        min_confidence: float | None = None,
    ) -> None:
        """Set the classes, how photos are resized, and which answers are unsure.

        Args:
            classes: names, in the order of the network's outputs.
            image_size: side of the square that a photo is resized to, in pixels, as in training.
            resize: crop the photo to a square, or squash it into one.
            calibrated: False if the network was trained on its validation photos too.
            min_confidence: in [0, 1); less probable answers are unsure. None if it is not
                calibrated, or no confidence reached train.target_precision.
        """
        self.classes, self.image_size, self.resize = classes, image_size, resize
        self.calibrated, self.min_confidence = calibrated, min_confidence

    @abstractmethod
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Classify decoded photos: (B, image_size, image_size, 3) RGB -> (B, K), rows sum to 1."""

    def predict(self, photo: Photo) -> Prediction:
        """Classify one photo.

        Args:
            photo: the path of a file, or its bytes; JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, BMP or
                PPM.

        Raises:
            PhotoError: the photo cannot be read as a picture, or has too many pixels.
        """
        return self.predict_pixels(self.pixels(photo)[None])[0]

    def explain(self, photo: Photo, label: str | None = None) -> bytes:
        """Draw which pixels of a photo speak for a class.

        Args:
            photo: as in `predict`.
            label: the class; None for the most probable one.

        Returns:
            The bytes of a PNG file.

        Raises:
            PhotoError: as in `predict`.
            ValueError: there is no such class.
            BundleError: this classifier cannot explain its answers.
        """
        del photo, label
        raise BundleError(
            "an exported classifier has no gradients to explain its answers with; "
            "allowed: a classifier's folder"
        )

    def predict_all(
        self, photos: Iterable[Photo], *, batch_size: int = BATCH
    ) -> Iterator[Prediction | PhotoError]:
        """Classify many photos in batches, and decode them on all cores.

        Args:
            photos: as in `predict`; at most two batches are read ahead.
            batch_size: photos that the network gets at a time.

        Yields:
            One answer for each photo, in order: a prediction, or the error of a photo that cannot
            be read.
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
        finally:  # after Ctrl-C too: photos still in the queue are not decoded
            pool.shutdown(cancel_futures=True)

    def pixels(self, photo: Photo, *, size: int | None = None) -> npt.NDArray[np.uint8]:
        """Decode a photo as `prepare` does: -> (image_size, image_size, 3), RGB.

        Args:
            photo: as in `predict`.
            size: side of the square in pixels; None for the classifier's own image_size.

        Raises:
            PhotoError: as in `predict`.
        """
        name = "photo" if isinstance(photo, bytes) else str(photo)
        try:
            data = photo if isinstance(photo, bytes) else read_file(Path(photo))
            return decode(data, size or self.image_size, resize=self.resize)
        except UnreadableMemberError as err:
            raise PhotoError(f"{name}: {err}") from err
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
        """Classify decoded photos: (B, image_size, image_size, 3).

        Raises:
            BundleError: a probability is not a number.
        """
        rows = self.probabilities(pixels)  # (B, K)
        if not np.isfinite(rows).all():
            raise BundleError("the classifier is damaged: a probability is not a number")
        orders = np.argsort(-rows, axis=1, kind="stable")
        return [
            Prediction({self.classes[k]: float(row[k]) for k in order})
            for row, order in zip(rows, orders, strict=True)
        ]
