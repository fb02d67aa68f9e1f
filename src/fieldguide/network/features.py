"""Features of every photo from a frozen backbone, computed once and kept.

They are a cache, not a result: `core/cache.py` says where they are and how they are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from fieldguide.core.cache import cache_folder, code_sha256
from fieldguide.core.environment import describe_machine, numeric_versions
from fieldguide.core.errors import TrainingError
from fieldguide.core.files import new_folder
from fieldguide.core.params import ModelParams
from fieldguide.core.store import Split, Store
from fieldguide.network.augmentation import is_flipped
from fieldguide.network.batches import Order, in_order
from fieldguide.network.initial import InitialNetwork
from fieldguide.network.interface import Network, output_layers


class FeatureBatches:
    """Batches of features, in the order in which `Batches` has the photos.

    Features are (V, N, F): views of a photo (itself and perhaps its mirror image), photos, inputs
    of the output layer. With two views, a batch has one of them for each photo.
    """

    def __init__(
        self, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], order: Order
    ) -> None:
        """Take the features (V, N, F) and labels (N,) of a split, in the order of the split."""
        self.order = order
        self._features, self.labels = features, torch.from_numpy(labels)

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.order.device
        for rows, draws in self.order:
            view = np.zeros(len(rows), dtype=np.int64)
            if draws is not None and len(self._features) > 1:
                view = is_flipped(draws).long().numpy()
            features = torch.from_numpy(self._features[view, rows.numpy()])  # (B, F)
            yield features.to(device), self.labels[rows].to(device)


class Head(nn.Module):
    """Dropout and the output layer of a network: (B, F) features -> (B, K) scores."""

    def __init__(self, classifier: nn.Module, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        """Unnormalised scores; the output layer may be a convolution of one pixel."""
        scores: Tensor = self.classifier(self.dropout(features)).flatten(1)
        return scores


def feature_folder(
    initial: InitialNetwork, model: ModelParams, store: Store, device: torch.device
) -> Path:
    """Return the folder for the features of a store, by everything that they depend on."""
    network = (initial.origin, model.backbone, vars(initial.preprocessing))
    software = (code_sha256(), numeric_versions())
    return cache_folder("features", store.sha256, network, software, describe_machine(device))


def cached_features(
    folder: Path,
    initial: InitialNetwork,
    split: Split,
    *,
    device: torch.device,
    with_flipped: bool,
) -> npt.NDArray[np.float32]:
    """Return the features of a split, memory-mapped: (V, N, F); compute them if necessary.

    If several processes call this, one computes the features and the others wait.

    Args:
        folder: of `feature_folder`.
        initial: the network, in eval mode.
        split: photos.
        device: where to compute.
        with_flipped: whether flipped photos are a second view.

    Raises:
        TrainingError: the scores of the network depend on more than its output layer.
    """
    views = 2 if with_flipped else 1
    target = folder / f"{split.name}-{views}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{target.name}.lock"):
        if not target.is_dir():
            with new_folder(target) as aside:
                _compute(aside / "features.npy", initial, split, device=device, views=views)
    features: npt.NDArray[np.float32] = np.load(target / "features.npy", mmap_mode="r")
    return features


def _compute(
    path: Path, initial: InitialNetwork, split: Split, *, device: torch.device, views: int
) -> None:
    net = initial.net.to(device)
    batches = in_order(split, initial.preprocessing, device)
    print(f"Computing features of {len(split):,} {split.name} photos ...", flush=True)
    row, out = 0, None
    for images, _ in tqdm(batches, "features", leave=False, disable=None):  # only on a terminal
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
    """Refuse a network whose scores depend on more than its output layer, such as VOLO."""
    (layer,) = output_layers(net)
    scores, head = net(images), Head(layer, dropout=0.0).eval()
    alone = head(classifier_input(net, images))
    if not torch.allclose(alone, scores, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise TrainingError(
            "model.finetune: head cannot train this network, because its scores depend on more "
            "than its output layer; allowed: last_k, gradual, full"
        )


@torch.inference_mode()
def classifier_input(net: Network, images: Tensor) -> Tensor:
    """Return the input of the output layer: (B, 3, H, W) -> (B, F); (B, F, 1, 1) of some networks.

    A hook takes it, because networks of timm differ in how their head is called.
    """
    taken: list[Tensor] = []
    (layer,) = output_layers(net)
    handle = layer.register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0]))
    try:
        net(images)
    finally:
        handle.remove()
    return taken[0].float()
