"""The batches of a training: photos, or features of photos from a frozen backbone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from fieldguide.core.params import TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order, eval_batch
from fieldguide.training.features import FeatureBatches, cached_features
from fieldguide.training.initial import InitialNetwork


def make_loaders(
    trainer: L.Trainer,
    store: Store,
    params: TrainParams,
    initial: InitialNetwork,
    features: Path | None = None,
) -> tuple[Batches | FeatureBatches, Batches | FeatureBatches | None]:
    """Return the batches to train on and to validate with; this may compute features.

    Args:
        trainer: knows the device and the rank of this process.
        store: photos.
        params: how to shuffle and augment them.
        initial: the network that they are for.
        features: folder of the features of `initial`; None to train on photos.

    Returns:
        Shuffled batches, augmented if params say so; and unchanged photos in order, None if the
        validation photos are trained on.
    """

    def loader(
        names: list[str],
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        **options: Any,
    ) -> Batches | FeatureBatches:
        split, device = store.split(*names), trainer.strategy.root_device
        ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        order = Order(split, batch_size, device=device, seed=seed, **ranks)
        if features is None:
            photos = initial.preprocessing
            return Batches(split, order, photos, augmentation=augmentation, **options)
        flipped = augmentation is not None
        found = cached_features(features, initial, split, device=device, with_flipped=flipped)
        return FeatureBatches(found, split.labels, order)

    size = initial.preprocessing.size
    size_of = partial(epoch_size, size, params.start_size, of=params.epochs)
    augmentation = None
    if params.use_augmentation:
        augmentation = Augmentation(
            crop=params.crop,
            crop_area=params.crop_area,
            color_jitter=params.color_jitter,
            random_erasing=params.random_erasing,
        )
    names = ["train", "val"] if params.train_on_val else ["train"]
    train = loader(names, params.batch_size, params.seed, augmentation, size_of=size_of)
    return train, None if params.train_on_val else loader(["val"], eval_batch(size))
