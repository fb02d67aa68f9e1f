"""What a frozen backbone says of every photo, computed once.

Kept in `.fieldguide/features/<key>/` of the project, the key being a hash of all that they depend
on: weights, preprocessing, photos, code, libraries, device. They are a cache and no result: `make
clean` deletes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from fieldguide.core.errors import TrainingError
from fieldguide.core.files import new_folder
from fieldguide.core.store import Split
from fieldguide.network.augmentation import mirrored
from fieldguide.network.batches import Order, in_order
from fieldguide.network.interface import Network, output_layers
from fieldguide.training.finetune import Head
from fieldguide.training.resume import project_root
from fieldguide.training.start import Start


def features_folder(key: str) -> Path:
    """Return where the features of one backbone on one data set are kept."""
    return project_root() / ".fieldguide" / "features" / key


class FeatureBatches:
    """Batches of features, drawn as `Batches` draws photos; of two views, the photo or its mirror.

    Features are (V, N, F): views, photos, what the output layer takes.
    """

    def __init__(
        self, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], order: Order
    ) -> None:
        """Take features of a split in its order, and their labels: (N,)."""
        self.order = order
        self._features, self._labels = features, torch.from_numpy(labels)

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.order.device
        for rows, draws in self.order:
            view = np.zeros(len(rows), dtype=np.int64)
            if draws is not None and len(self._features) > 1:
                view = mirrored(draws).long().numpy()
            features = torch.from_numpy(self._features[view, rows.numpy()])  # (B, F)
            yield features.to(device), self._labels[rows].to(device)


def cached_features(
    folder: Path, start: Start, split: Split, *, device: torch.device, with_mirror: bool
) -> npt.NDArray[np.float32]:
    """Features of a split, and of its mirrored photos if asked for: (V, N, F), memory-mapped.

    Of several processes the first computes them, the others wait.

    Args:
        folder: of all that they depend on, but for the split and its mirror.
        start: the network, in eval mode.
        split: photos.
        device: where to compute.
        with_mirror: whether there is a second view.

    Raises:
        TrainingError: the network's scores are made of more than its output layer.
    """
    views = 2 if with_mirror else 1
    target = folder / f"{split.name}-{views}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{target.name}.lock"):
        if not target.is_dir():
            with new_folder(target) as aside:
                _compute(aside / "features.npy", start, split, device=device, views=views)
    features: npt.NDArray[np.float32] = np.load(target / "features.npy", mmap_mode="r")
    return features


def _compute(path: Path, start: Start, split: Split, *, device: torch.device, views: int) -> None:
    net = start.net.to(device)
    batches = in_order(split, start.preprocessing, device)
    print(f"Features of {len(split):,} {split.name} photos, once ...", flush=True)
    console = Console(stderr=True)
    row, out = 0, None
    for images, _ in track(
        batches, description="features", console=console, disable=not console.is_terminal
    ):
        if row == 0:
            _check_head(net, images[:2])
        for view in range(views):
            features = classifier_input(net, images.flip(-1) if view else images).cpu().numpy()
            if out is None:
                shape = (views, len(split), *features.shape[1:])
                out = np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), shape)
            out[view, row : row + len(features)] = features
        row += len(images)
    assert out is not None
    out.flush()


@torch.inference_mode()
def _check_head(net: Network, images: Tensor) -> None:
    """Refuse a network such as VOLO, whose scores are not those of its output layer alone."""
    (layer,) = output_layers(net)
    scores, head = net(images), Head(layer, dropout=0.0).eval()
    alone = head(classifier_input(net, images))
    if not torch.allclose(alone, scores, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise TrainingError(
            "model.finetune: head cannot be trained alone, as this network's scores are made of "
            "more than its output layer; allowed: last_k, gradual, full"
        )


@torch.inference_mode()
def classifier_input(net: Network, images: Tensor) -> Tensor:
    """Return what reaches the output layer: (B, 3, H, W) -> (B, F), or (B, F, 1, 1) of some."""
    taken: list[Tensor] = []
    (layer,) = output_layers(net)
    handle = layer.register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0]))
    try:
        net(images)
    finally:
        handle.remove()
    features: Tensor = taken[0]
    return features.float()
