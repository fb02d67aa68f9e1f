"""What a training is fed with: photos, or a frozen backbone's features of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lightning as L

from fieldguide.core.params import TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order, eval_batch
from fieldguide.training.features import FeatureBatches, cached_features
from fieldguide.training.start import Start


class StoreData(L.LightningDataModule):
    """Batches of a prepared store for the process and device that Lightning chose."""

    def __init__(
        self, store: Store, params: TrainParams, start: Start, features: Path | None = None
    ) -> None:
        """Keep what batches are made of.

        Args:
            store: photos.
            params: how to draw them.
            start: what takes them.
            features: folder for the features of `start`, if they are wanted instead of photos.
        """
        super().__init__()
        self.store, self.params, self.start, self.features = store, params, start, features
        self._loaders: dict[str, Batches | FeatureBatches] = {}

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's hook
        """Make the loaders, which may take a while where features are computed."""
        trained_on = ["train", "val"] if self.params.train_on_val else ["train"]
        self._loaders = {"train": self._batches(trained_on, training=True)}
        if not self.params.train_on_val:
            self._loaders["val"] = self._batches(["val"], training=False)

    def train_dataloader(self) -> Batches | FeatureBatches:
        """Shuffled and, if asked for, augmented."""
        return self._loaders["train"]

    def val_dataloader(self) -> Batches | FeatureBatches | list[Batches]:
        """In order and as they are; none where they are trained on."""
        return self._loaders.get("val", [])

    def _batches(self, names: list[str], *, training: bool) -> Batches | FeatureBatches:
        trainer, params, split = self.trainer, self.params, self.store.split(*names)
        preprocessing = self.start.preprocessing
        assert trainer is not None
        order = Order(
            split,
            params.batch_size if training else eval_batch(preprocessing.size),
            device=trainer.strategy.root_device,
            seed=params.seed if training else None,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        augment = training and params.use_augmentation
        if self.features is not None:
            features = cached_features(
                self.features, self.start, split, device=order.device, with_mirror=augment
            )
            return FeatureBatches(features, split.labels, order)
        size_of = None
        if training and params.start_size < 1:
            size_of = partial(epoch_size, preprocessing.size, params.start_size, of=params.epochs)
        return Batches(
            split,
            order,
            preprocessing,
            augmentation=_augmentation(params) if augment else None,
            size_of=size_of,
        )


def _augmentation(params: TrainParams) -> Augmentation:
    return Augmentation(
        crop=params.crop,
        crop_area=params.crop_area,
        color_jitter=params.color_jitter,
        random_erasing=params.random_erasing,
    )
