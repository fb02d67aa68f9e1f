"""Batches straight from the memory-mapped store, ready for the network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fieldguide.data.store import Split
from fieldguide.data.transforms import DRAWS, augment, normalize, to_unit
from fieldguide.errors import TrainingError

# Share of the free GPU memory that the store may take; the rest is for the network.
RESIDENT_SHARE = 0.5
# First number of a seed's key: what is drawn.
WEIGHTS, ORDER, DROPOUT = range(3)


class Batches:
    """One pass over a split: normalised images and labels on `device`.

    With a seed the order is drawn anew each epoch and images are augmented; both depend on
    (seed, epoch) and the image alone, so that an interrupted training goes on as it would have.
    Without a seed, images come in order and as they are. Batches differ in size by one at most:
    none is tiny, and every image is used once. Of several processes each takes its own part.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        mean: list[float],
        std: list[float],
        device: torch.device,
        seed: int | None = None,
        jitter: float | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Choose what to draw.

        Args:
            split: where images come from.
            batch_size: images per batch, at most.
            mean: per channel, in [0, 1].
            std: per channel, in [0, 1].
            device: where batches are made.
            seed: of order and augmentation; None for neither.
            jitter: strength of the colour jitter; None for no augmentation at all.
            rank: of this process.
            world_size: number of processes.

        Raises:
            TrainingError: there are more processes than photos.
        """
        self.epoch = 0
        self._split = split
        self._labels = torch.from_numpy(split.labels)
        self._mean, self._std = mean, std
        self._device = device
        self._seed, self._jitter = seed, jitter
        self._rank, self._world_size = rank, world_size
        if len(split) < world_size:
            raise TrainingError(
                f"train.devices: {world_size} processes cannot share {len(split)} photos of "
                f"{split.name}; allowed: up to one process a photo"
            )
        # Each process must take the same number of steps, or the others would wait for ever; and
        # none may get an empty batch, whose loss is not a number.
        share = -(-len(split) // world_size)
        self._steps = min(-(-share // batch_size), len(split) // world_size)
        self._resident = self._load() if _fits(split, device) else None

    def __len__(self) -> int:
        return self._steps

    @property
    def photos(self) -> int:
        """Number of photos of an epoch, over all processes."""
        return len(self._split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self._split)
        order, draws = torch.arange(count), None
        if self._seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, self.epoch))
            order = torch.randperm(count, generator=generator)
            if self._jitter is not None:
                draws = torch.rand(count, DRAWS, generator=generator)
        parts = order.tensor_split(self._steps * self._world_size)
        for rows in parts[self._rank :: self._world_size]:
            images = self._images(rows)
            if draws is None:
                images = to_unit(images)
            else:
                images = augment(images, draws[rows].to(self._device), self._jitter or 0)
            yield normalize(images, self._mean, self._std), self._labels[rows].to(self._device)

    def _images(self, rows: Tensor) -> Tensor:
        """(B,) -> (B, H, W, 3) uint8 on the device."""
        if self._resident is not None:
            return self._resident[rows.to(self._device)]
        images = torch.from_numpy(self._split.images(rows.numpy()))
        if self._device.type == "cuda":
            return images.pin_memory().to(self._device, non_blocking=True)
        return images.to(self._device)

    def _load(self) -> Tensor:
        chunks = np.array_split(np.arange(len(self._split)), -(-self._split.nbytes // 2**28))
        parts = [torch.from_numpy(self._split.images(rows)).to(self._device) for rows in chunks]
        return torch.cat(parts)


def eval_batch(image_size: int) -> int:
    """Images that a network without gradients takes at once: 256 at up to 64 pixels, then fewer.

    Bounds memory; changes no result beyond rounding.
    """
    return max(1, min(256, 2**20 // image_size**2))


def _fits(split: Split, device: torch.device) -> bool:
    """Whether the whole split can live in this GPU's memory."""
    if device.type != "cuda" or len(split) == 0:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    # Twice, because the parts are joined there.
    return 2 * split.nbytes < RESIDENT_SHARE * free


def derive_seed(seed: int, *key: int) -> int:
    """Seed of one purpose out of the seed of params.yaml: of an epoch, of a process.

    Another key, another seed; NumPy's SeedSequence mixes them so that neighbours are unrelated.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
