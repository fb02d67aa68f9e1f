"""The batches of a training: photos, or features of photos from a frozen backbone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order, eval_batch
from fieldguide.network.initial import InitialNetwork
from fieldguide.training.features import FeatureBatches, cached_features
from fieldguide.training.processes import Processes

Loader = Batches | FeatureBatches


def make_loaders(
    store: Store,
    params: TrainParams,
    initial: InitialNetwork,
    processes: Processes,
    features: Path | None = None,
) -> tuple[Loader, Loader | None]:
    """Return the batches to train on and to validate with; this may compute features.

    Args:
        store: photos.
        params: how to shuffle and augment them.
        initial: the network that they are for.
        processes: share the photos of each step.
        features: folder of the features of `initial`; None to train on photos.

    Returns:
        Shuffled batches, augmented if params say so; and unchanged photos in order, None if the
        validation photos are trained on.

    Raises:
        TrainingError: there are fewer photos than processes; or see `cached_features`.
    """

    def loader(
        names: list[str],
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        **options: Any,
    ) -> Loader:
        split, device = store.split(*names), processes.device
        if len(split) < processes.count:
            raise TrainingError(
                f"train.devices: {params.devices} × train.num_nodes: {params.num_nodes} share the "
                f"photos of a step; found {len(split)} in {' and '.join(names)}; allowed: at least "
                "one for each process"
            )
        ranks = {"rank": processes.rank, "world_size": processes.count}
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
