"""What a training is fed with: photos, or a frozen backbone's features of them."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from fieldguide.data.batches import Batches, Order, eval_batch
from fieldguide.data.store import Store
from fieldguide.models.start import Start
from fieldguide.params import TrainParams
from fieldguide.training.features import FeatureBatches, cached_features


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
        """Make both loaders, which may take a while where features are computed."""
        params, size = self.params, self.start.preprocessing.size
        self._loaders = {
            "train": self._batches(
                "train", params.batch_size, seed=params.seed, augment=params.use_augmentation
            ),
            "val": self._batches("val", eval_batch(size)),
        }

    def train_dataloader(self) -> Batches | FeatureBatches:
        """Shuffled and, if asked for, augmented."""
        return self._loaders["train"]

    def val_dataloader(self) -> Batches | FeatureBatches:
        """In order and as they are."""
        return self._loaders["val"]

    def _batches(
        self, name: str, batch_size: int, *, seed: int | None = None, augment: bool = False
    ) -> Batches | FeatureBatches:
        trainer, split = self.trainer, self.store.split(name)
        assert trainer is not None
        order = Order(
            split,
            batch_size,
            device=trainer.strategy.root_device,
            seed=seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if self.features is None:
            jitter = self.params.color_jitter if augment else None
            return Batches(split, order, self.start.preprocessing, jitter=jitter)
        features = cached_features(
            self.features, self.start, split, device=order.device, with_mirror=augment
        )
        return FeatureBatches(features, split.labels, order)
