"""The batches of a training: photos, or features of photos from a frozen backbone."""

from __future__ import annotations

from functools import partial

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import ModelParams, TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order, eval_batch
from fieldguide.network.features import FeatureBatches, cached_features, feature_folder
from fieldguide.network.initial import InitialNetwork
from fieldguide.training.processes import Processes

Loader = Batches | FeatureBatches


def make_loaders(
    params: TrainParams,
    model: ModelParams,
    *,
    store: Store,
    initial: InitialNetwork,
    processes: Processes,
) -> tuple[Loader, Loader | None]:
    """Make the batches for `initial`; if only its head is trained, this may compute features.

    Returns:
        Shuffled or drawn batches to train on, augmented if params say so; and unchanged photos to
        validate with, None if they are trained on.

    Raises:
        TrainingError: there are fewer photos than processes.
    """
    device, size = processes.device, initial.preprocessing.size
    size_of = partial(epoch_size, size, params.start_size, of=params.epochs)
    settings = params.model_dump(include={"crop", "crop_area", "color_jitter", "random_erasing"})
    augmentation = Augmentation(**settings) if params.use_augmentation else None

    def loader(*names: str, batch_size: int, training: bool) -> Loader:
        split = store.split(*names)
        if len(split) < processes.count:
            raise TrainingError(
                f"train.devices: {params.devices} × train.num_nodes: {params.num_nodes} share the "
                f"photos of a step; found {len(split)} in {' and '.join(names)}; allowed: at least "
                "one for each process"
            )
        seed = params.seed if training else None
        ranks = {"rank": processes.rank, "world_size": processes.count}
        balanced = training and params.balance == "sampler"
        order = Order(split, batch_size, device=device, seed=seed, balanced=balanced, **ranks)
        if model.head_only:
            folder = feature_folder(initial, model, store, device)
            flipped = training and params.use_augmentation
            found = cached_features(folder, initial, split, device=device, with_flipped=flipped)
            return FeatureBatches(found, split.labels, order)
        photos = initial.preprocessing
        if not training:
            return Batches(split, order, photos)
        return Batches(split, order, photos, augmentation=augmentation, size_of=size_of)

    if params.train_on_val:
        return loader("train", "val", batch_size=params.batch_size, training=True), None
    train = loader("train", batch_size=params.batch_size, training=True)
    return train, loader("val", batch_size=eval_batch(size), training=False)
