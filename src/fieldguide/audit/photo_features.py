"""Features of photos from the trained classifier, or from a pretrained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from fieldguide.core.errors import ParamsError, TrainingError
from fieldguide.core.params import ModelParams
from fieldguide.core.store import Store
from fieldguide.network.bundle import load_bundle
from fieldguide.network.features import cached_features, feature_folder
from fieldguide.network.initial import InitialNetwork, backbone_sha256, initial_network


def network_of_classifier(folder: Path) -> InitialNetwork:
    """Load the network of a trained classifier.

    Raises:
        BundleError: the classifier is missing or damaged.
    """
    bundle = load_bundle(folder)
    sha256 = backbone_sha256(bundle.net, with_head=True)
    return InitialNetwork(bundle.net, bundle.preprocessing, f"{folder} (SHA-256 {sha256})")


def pretrained_network(
    params: ModelParams, store: Store, name: str, weights: str
) -> InitialNetwork:
    """Build a pretrained network of timm.

    Args:
        params: section `model`, for what name and weights do not say.
        store: photos.
        name: of the network in timm; option --backbone.
        weights: "pretrained", or the name of a file in models/weights/; option --weights.

    Raises:
        ParamsError: timm has no such network, or weights is "none".
        TrainingError: weights cannot be read or downloaded, or are of another network.
    """
    if weights == "none":
        raise ParamsError(
            "--weights: found none; allowed: pretrained, or the name of a file in models/weights/"
        )
    update = {"name": name, "weights": weights, "input_size": "auto", "finetune": "head"}
    try:
        model = ModelParams.model_validate(params.model_dump() | update)
    except ValidationError as err:
        raise ParamsError(
            _of_options(err.errors()[0]["msg"].removeprefix("Value error, "))
        ) from err
    try:
        return initial_network(model, store)
    except TrainingError as err:
        raise TrainingError(_of_options(str(err))) from err


def _of_options(message: str) -> str:
    """Name the command's options in a message that names params."""
    return message.replace("model.weights", "--weights").replace("model.name", "--backbone")


def photo_features(
    initial: InitialNetwork,
    model: ModelParams,
    store: Store,
    splits: Sequence[str],
    *,
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Return the inputs of the network's output layer: (N, F), of one split after another.

    They are computed once and cached in `.fieldguide/` (`network/features.py`).
    """
    initial.net.eval()
    folder = feature_folder(initial, model, store, device)
    features = [
        cached_features(folder, initial, store.split(name), device=device, with_flipped=False)[0]
        for name in splits
    ]
    return np.concatenate([some.reshape(len(some), -1) for some in features])
