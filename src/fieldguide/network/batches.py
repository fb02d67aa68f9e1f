"""Batches straight from the memory-mapped store, ready for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fieldguide.core.errors import TrainingError
from fieldguide.core.store import Split
from fieldguide.network.augmentation import DRAWS, Augmentation
from fieldguide.network.preprocessing import Preprocessing, to_unit

# Share of the free GPU memory that the store may take; the rest is for the network.
RESIDENT_SHARE = 0.5
# First number of a seed's key: what is drawn.
WEIGHTS, ORDER, DROPOUT = range(3)


class Order:
    """Which photos make each batch of an epoch, and the random numbers of their augmentation.

    With a seed the order is drawn anew each epoch; both depend on (seed, epoch) and the image
    alone, so that an interrupted training goes on as it would have. Without a seed, images come in
    order. Batches differ in size by one at most: none is tiny, and every image is used once.

    Of several processes each takes its own part of every step's batch, which is that of a single
    process with `batch_size` × `world_size`. Only at a batch size of 1 there may be fewer steps,
    with a part or more of two photos, because none may be empty.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        device: torch.device,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Choose what to draw.

        Args:
            split: where images come from.
            batch_size: images per batch and process, at most.
            device: where batches are made.
            seed: of order and augmentation; None for neither.
            rank: of this process.
            world_size: number of processes.

        Raises:
            TrainingError: there are more processes than photos.
        """
        self.epoch = 0
        self.photos = len(split)  # of an epoch, over all processes
        self.device = device
        self._seed, self._rank, self._world_size = seed, rank, world_size
        if self.photos < world_size:
            raise TrainingError(
                f"train.devices × train.num_nodes: {world_size} processes cannot share "
                f"{self.photos} photos of {split.name}; allowed: up to one process a photo"
            )
        # No part may be empty: the mean loss of no photo is not a number.
        self.steps = min(-(-self.photos // (batch_size * world_size)), self.photos // world_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield rows (B,) and, with a seed, draws (B, DRAWS), both on the CPU."""
        order, draws = torch.arange(self.photos), None
        if self._seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, self.epoch))
            order = torch.randperm(self.photos, generator=generator)
            draws = torch.rand(self.photos, DRAWS, generator=generator)
        for step, whole in enumerate(order.tensor_split(self.steps)):
            rows = whole[self.part(step)]
            yield rows, None if draws is None else draws[rows]

    def step_size(self, step: int) -> int:
        """Images of a step, counted from 0, over all processes."""
        size, larger = divmod(self.photos, self.steps)
        return size + (step < larger)

    def part(self, step: int) -> slice:
        """Which images of a step's batch are this process's."""
        size, larger = divmod(self.step_size(step), self._world_size)
        start = self._rank * size + min(self._rank, larger)
        return slice(start, start + size + (self._rank < larger))


class Batches:
    """One pass over a split: network input and labels on the order's device."""

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
            split: where images come from.
            order: of which batches.
            preprocessing: what the network takes.
            augmentation: how photos are changed, if order has draws.
            size_of: an epoch -> pixels of its photos; None for those of `preprocessing`.
        """
        self.order = order
        self._split, self._preprocessing = split, preprocessing
        self._augmentation, self._size_of = augmentation, size_of
        self._device = order.device
        self._labels = torch.from_numpy(split.labels)
        self._resident = self._load() if _fits(split, self._device) else None

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        preprocessing = self._preprocessing
        if self._size_of is not None:
            preprocessing = replace(preprocessing, size=self._size_of(self.order.epoch))
        for rows, draws in self.order:
            images = self._input(self._images(rows), draws, preprocessing)
            images = images.contiguous(memory_format=torch.channels_last)
            yield images, self._labels[rows].to(self._device)

    def _input(self, images: Tensor, draws: Tensor | None, preprocessing: Preprocessing) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, size, size), augmented where there are draws for it."""
        change = self._augmentation
        if draws is None or change is None:
            return preprocessing(to_unit(images))
        draws = draws.to(self._device)
        moved = change(images, draws, preprocessing.size, preprocessing.interpolation)
        return change.erase(preprocessing(moved), draws)

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


def in_order(split: Split, preprocessing: Preprocessing, device: torch.device) -> Batches:
    """All photos of a split as they are, in batches for a network without gradients."""
    return Batches(
        split, Order(split, eval_batch(preprocessing.size), device=device), preprocessing
    )


def derive_seed(seed: int, *key: int) -> int:
    """Seed of one purpose out of the seed of params.yaml: of an epoch, of a process.

    Another key, another seed; NumPy's SeedSequence mixes them so that neighbours are unrelated.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
