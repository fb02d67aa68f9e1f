"""Batches of a split of the memory-mapped store, ready for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fieldguide.core.store import Split
from fieldguide.network.augmentation import DRAWS, Augmentation
from fieldguide.network.preprocessing import Preprocessing, to_unit

# First number of a key of `derive_seed`: what is drawn.
WEIGHTS, ORDER, DROPOUT = range(3)


class Order:
    """Decides which photos are in each batch of an epoch, and draws their random numbers.

    With a seed the photos are shuffled in each epoch. Order and random numbers depend only on seed
    and epoch, so that a resumed training continues as if it had never stopped. Without a seed,
    photos come in the order of the split. Each photo is used once, and the sizes of two batches
    differ by at most one.

    A balanced order draws as many photos with replacement: first a class, then one of its photos,
    both uniformly. A photo that is drawn twice gets other random numbers each time.

    If several processes train together, each takes its slice of the batch that a single process
    with `batch_size` × `world_size` would have. Only with a batch size of 1 there may be fewer
    steps, in which some processes have two photos, because no slice may be empty.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        device: torch.device,
        seed: int | None = None,
        balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Plan the steps of an epoch.

        Args:
            split: photos, at least one per process.
            batch_size: largest number of images per batch and process.
            device: where batches are made.
            seed: of order and augmentation; None for neither.
            balanced: draw each class equally often; needs a seed.
            rank: number of this process.
            world_size: number of processes.
        """
        self.epoch = 0
        self.photos = len(split)  # per epoch, over all processes
        self.device = device
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._labels = torch.from_numpy(split.labels) if balanced else None
        # No slice may be empty, because the mean loss of no photos is NaN.
        self.steps = min(-(-self.photos // (batch_size * world_size)), self.photos // world_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield rows (B,) and, with a seed, random numbers (B, DRAWS), both on the CPU."""
        order, draws = torch.arange(self.photos), None
        keys = order  # rows of `draws`, one for each row of `order`
        if self._seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, self.epoch))
            if self._labels is None:
                order = keys = torch.randperm(self.photos, generator=generator)
            else:
                order = draw_balanced(self._labels, generator)
            draws = torch.rand(self.photos, DRAWS, generator=generator)
        steps = zip(order.tensor_split(self.steps), keys.tensor_split(self.steps), strict=True)
        for step, (rows, drawn) in enumerate(steps):
            mine = self.rank_slice(step)
            yield rows[mine], None if draws is None else draws[drawn[mine]]

    def step_size(self, step: int) -> int:
        """Return the number of images in a step, over all processes; steps count from 0."""
        size, larger = divmod(self.photos, self.steps)
        return size + (step < larger)

    def rank_slice(self, step: int) -> slice:
        """Return which images of a step belong to this process."""
        size, larger = divmod(self.step_size(step), self._world_size)
        start = self._rank * size + min(self._rank, larger)
        return slice(start, start + size + (self._rank < larger))


def draw_balanced(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many rows as there are labels: first a class, then one of its rows, uniformly.

    Only whole numbers are drawn, so that the rows are the same on every processor. The remainder
    of a division prefers the first rows of a class by less than 1 in 2^40.

    Args:
        labels: (N,), class of each row; a class without a row is never drawn.
        generator: of the draw.

    Returns:
        (N,) rows, on the CPU.
    """
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    sizes = sizes[sizes > 0]
    starts = sizes.cumsum(0) - sizes
    drawn = torch.randint(len(sizes), (len(labels),), generator=generator)
    places = torch.randint(2**62, (len(labels),), generator=generator) % sizes[drawn]
    return by_class[starts[drawn] + places]


class Batches:
    """Iterates over a split: network input and labels, on the order's device."""

    def __init__(
        self,
        split: Split,
        order: Order,
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation | None = None,
        size_of: Callable[[int], int] | None = None,
    ) -> None:
        """Choose how photos become input.

        Args:
            split: photos.
            order: which photos each batch has.
            preprocessing: what the network expects.
            augmentation: how photos are changed, if `order` has a seed.
            size_of: maps an epoch to the size of its input, in pixels; None: always the size of
                `preprocessing`.
        """
        self.order = order
        self._split, self._preprocessing = split, preprocessing
        self._augmentation, self._size_of = augmentation, size_of
        self._device = order.device
        self.labels = torch.from_numpy(split.labels)  # of every photo of the split

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        preprocessing = self._preprocessing
        if self._size_of is not None:
            preprocessing = replace(preprocessing, size=self._size_of(self.order.epoch))
        for rows, draws in self.order:
            images = self._input(self._images(rows), draws, preprocessing)
            images = images.contiguous(memory_format=torch.channels_last)
            yield images, self.labels[rows].to(self._device)

    def _input(self, images: Tensor, draws: Tensor | None, preprocessing: Preprocessing) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, size, size), augmented if there are random numbers."""
        augment = self._augmentation
        if draws is None or augment is None:
            return preprocessing(to_unit(images))
        draws = draws.to(self._device)
        images = augment(images, draws, preprocessing.size, preprocessing.interpolation)
        return augment.erase(preprocessing(images), draws)

    def _images(self, rows: Tensor) -> Tensor:
        """(B,) -> (B, H, W, 3) uint8 on the device."""
        images = torch.from_numpy(self._split.images(rows.numpy()))
        if self._device.type == "cuda":
            return images.pin_memory().to(self._device, non_blocking=True)
        return images.to(self._device)


def eval_batch(image_size: int) -> int:
    """Return a batch size for evaluation: 256 images of up to 64 pixels, fewer of larger ones.

    It limits the memory; results differ only by rounding.
    """
    return max(1, min(256, 2**20 // image_size**2))


def in_order(split: Split, preprocessing: Preprocessing, device: torch.device) -> Batches:
    """Return batches of all photos, unchanged and in the order of the split, for evaluation."""
    return Batches(
        split, Order(split, eval_batch(preprocessing.size), device=device), preprocessing
    )


def derive_seed(seed: int, *key: int) -> int:
    """Derive the seed of one purpose, such as an epoch, from the seed in params.yaml.

    Another key gives another seed. NumPy's SeedSequence makes the seeds of similar keys unrelated.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
