"""The network that a training starts from: random, downloaded, from a file, or a classifier."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldguide.core.errors import BundleError, TrainingError, is_out_of_memory
from fieldguide.core.params import CNNParams, ModelParams
from fieldguide.core.store import Store
from fieldguide.network.backbones import build
from fieldguide.network.batches import Batches, Order, eval_batch
from fieldguide.network.bundle import Bundle, load_bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.cnn import CNN
from fieldguide.network.interface import Network, output_layers
from fieldguide.network.preprocessing import Interpolation, Preprocessing

FOLDER = Path("models/weights")  # in dvc.yaml, model.weights is a dependency there
# With model.input_size: auto, photos are enlarged at most this much: a larger input costs time and
# adds no detail.
_MOST_ENLARGED = 4
_WHITENING_PHOTOS = 1000  # that the whitening is computed from
_LARGE = 512  # pixels of photos that need not be enlarged for any network
_SIZE_STEP = 32  # pixels; most networks halve their input five times


@dataclass(frozen=True)
class InitialNetwork:
    """A network before training, and the preprocessing of its input."""

    net: Network
    preprocessing: Preprocessing
    origin: str  # "none", or name and SHA-256 of the weights

    def bundle(
        self,
        model: ModelParams,
        store: Store,
        *,
        val_acc: float | None,
        calibration: Calibration | None,
    ) -> Bundle:
        """Return the classifier that the network is after training.

        Args:
            model: what was built.
            store: photos that it was trained on.
            val_acc: accuracy on the validation photos, in [0, 1]; None if they were trained on.
            calibration: on the validation photos.
        """
        return Bundle(
            net=self.net,
            architecture=model.architecture,
            classes=store.classes,
            image_size=store.image_size,
            resize=store.resize,
            preprocessing=self.preprocessing,
            val_acc=val_acc,
            started_from=self.origin,
            calibration=calibration,
        )


def initial_network(model: ModelParams, store: Store) -> InitialNetwork:
    """Build the network of `model`, with its weights and an output layer for the store's classes.

    The output layer is new, from PyTorch's global generator, unless an earlier classifier has
    exactly the same classes. Preprocessing belongs to the weights; random weights get the mean and
    standard deviation of the store.

    Raises:
        TrainingError: weights cannot be read or downloaded, or are of another network; or the
            network does not take the input size.
    """
    path, head_kept = FOLDER / model.weights, False
    if model.weights == "none":
        net, preprocessing = _random(model, store)
    elif model.weights == "pretrained":
        net, preprocessing = _download(model, store)
    elif path.is_dir():
        net, preprocessing, head_kept = _from_classifier(model, store.classes, path)
    elif model.name == "cnn":
        raise TrainingError(
            f"{path}: not a classifier (a folder with model.json); allowed for model.name: cnn: "
            "none, or an earlier classifier"
        )
    else:
        net, preprocessing = _from_file(model, store, path)
    check_size(net, model, preprocessing.size)
    if model.weights == "none":
        return InitialNetwork(net, preprocessing, "none")
    sha256 = backbone_sha256(net, with_head=head_kept)
    return InitialNetwork(net, preprocessing, f"{model.weights} (SHA-256 {sha256[:12]})")


def backbone_sha256(net: Network, *, with_head: bool = False) -> str:
    """Return a hash of all weights; the output layer counts only with `with_head`."""
    head = {id(p) for layer in output_layers(net) for p in layer.parameters()}
    digest = hashlib.sha256()
    for name, value in net.state_dict(keep_vars=True).items():
        if with_head or id(value) not in head:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_size(net: Network, model: ModelParams, size: int) -> None:
    """Run a black image of `size` pixels through a model of timm; the CNN knows its smallest size.

    Raises:
        TrainingError: the network does not take it.
    """
    if model.name == "cnn":
        if size < model.smallest_input:  # params do not know the size of an earlier classifier
            raise TrainingError(
                f"train.start_size: the training starts with photos of {size} pixels, which "
                f"{model.conv_layers} blocks halve to nothing; allowed: a start of "
                f"{model.smallest_input} pixels or more"
            )
        return
    net.eval()
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size))
    except Exception as err:  # models of timm refuse a size with many kinds of errors
        raise _size_error(model, size, err) from err
    net.train()


def _size_error(model: ModelParams, size: int, err: Exception) -> TrainingError:
    own = _preprocessing(model.model_copy(update={"input_size": "auto"}), _LARGE).size
    return TrainingError(
        f"model.input_size, train.start_size: {model.name} does not take {size} pixels "
        f"({type(err).__name__}: {_shortened(err)}); allowed: another size, such as {own}"
    )


def _random(model: ModelParams, store: Store) -> tuple[Network, Preprocessing]:
    size = store.image_size if model.input_size == "auto" else model.input_size
    try:
        net = build(
            model.architecture,
            input_size=size,
            num_classes=len(store.classes),
            dropout=model.dropout,
        )
    except Exception as err:  # models of timm refuse a size with many kinds of errors
        if is_out_of_memory(err):
            raise MemoryError from err
        if model.name == "cnn":
            raise
        raise _size_error(model, size, err) from err
    preprocessing = Preprocessing(size, "bilinear", store.mean, store.std)
    if isinstance(net, CNN) and net.whitening is not None:
        net.whitening.fit(_some_photos(store, preprocessing))
    return net, preprocessing


def _some_photos(store: Store, preprocessing: Preprocessing) -> Iterator[Tensor]:
    """Yield about 1,000 random training photos, if there are so many: (B, 3, size, size)."""
    split, batch_size = store.split("train"), eval_batch(preprocessing.size)
    seed = int(torch.randint(2**31, ()))
    order = Order(split, batch_size, device=torch.device("cpu"), seed=seed)
    for images, _ in islice(
        Batches(split, order, preprocessing), -(-_WHITENING_PHOTOS // batch_size)
    ):
        yield images


def _download(model: ModelParams, store: Store) -> tuple[Network, Preprocessing]:
    config = _config_of(model.name)
    if config is None or not config.has_weights:
        raise TrainingError(
            f"model.weights: timm has no pretrained weights for {model.name}; allowed: none, or "
            f"a file in {FOLDER}/"
        )
    preprocessing = _preprocessing(model, store.image_size)
    try:
        net = build(
            model.architecture,
            input_size=preprocessing.size,
            num_classes=config.num_classes,
            dropout=model.dropout,
            pretrained=True,
        )
    except Exception as err:  # of the network, the hub or the disk; timm wraps none of them
        raise TrainingError(
            f"model.weights: pretrained weights of {model.name} cannot be downloaded "
            f"({type(err).__name__}: {_shortened(err)}); without access to the hub put a file "
            f"into {FOLDER}/ and name it: docs/finetuning.md"
        ) from err
    # Also if there are equally many classes, because they are other classes.
    net.reset_classifier(len(store.classes))
    return net, preprocessing


def _from_file(model: ModelParams, store: Store, path: Path) -> tuple[Network, Preprocessing]:
    state = _read_state(path)
    preprocessing = _preprocessing(model, store.image_size)
    # The network first gets as many classes as the file has, so that the file must have every
    # weight; otherwise some would stay random.
    known = _classes_of(state, model.name)
    overlay = {"state_dict": state, "num_classes": known, "label_offset": 0}
    try:
        net = build(
            model.architecture,
            input_size=preprocessing.size,
            num_classes=known,
            dropout=model.dropout,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
        )
    except Exception as err:  # models of timm convert old files in their own ways
        raise TrainingError(
            f"{path}: weights do not fit model.name: {model.name} ({_shortened(err)}); allowed: "
            "weights of that network, named as in timm"
        ) from err
    vars(net)["pretrained_cfg"].pop("state_dict")  # a second copy of all weights in memory
    net.reset_classifier(len(store.classes))
    return net, preprocessing


def _read_state(path: Path) -> dict[str, Any]:
    from timm.models import load_state_dict  # noqa: PLC0415 - slow, and not for the CNN

    allowed = "allowed: named tensors, as safetensors or torch.save write a state dict"
    if not path.is_file():
        raise TrainingError(
            f"{path}: is missing; allowed for model.weights: none, pretrained, or the name of a "
            "file or classifier in that folder"
        )
    try:
        # Only weights are read from a pickled checkpoint, because it may come from a stranger.
        state = load_state_dict(str(path), weights_only=True)
    except Exception as err:  # damaged files and other pickles cause many kinds of errors
        found = f"{type(err).__name__}: {str(err).partition('. ')[0]}"
        raise TrainingError(f"{path}: cannot be read as weights ({found}); {allowed}") from err
    # With an empty state dict timm would download weights.
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(f"{path}: found something other than weights; {allowed}")
    return dict(state)


def _classes_of(state: dict[str, Any], name: str) -> int:
    """Return the number of classes in a file of weights; 0 if it has no output layer."""
    config = _config_of(name)
    layer = config.classifier if config else None
    layer = layer[0] if isinstance(layer, list | tuple) else layer
    weight = state.get(f"{layer}.weight")
    return len(weight) if isinstance(weight, Tensor) else 0


def _config_of(name: str) -> Any:
    from timm.models import get_pretrained_cfg  # noqa: PLC0415 - slow, and not for the CNN

    return get_pretrained_cfg(name)


def _shortened(err: Exception) -> str:
    return textwrap.shorten(str(err), 300, placeholder=" ...")


def _preprocessing(model: ModelParams, stored: int) -> Preprocessing:
    """Return the preprocessing of the weights of this name, with the input size of params.

    Args:
        model: with input_size auto, the size is that of the weights or less; docs/finetuning.md.
        stored: size of the photos, in pixels.
    """
    from timm.data import resolve_data_config  # noqa: PLC0415 - slow, and not for the CNN

    config = _config_of(model.name)
    data = resolve_data_config(pretrained_cfg=config.to_dict() if config else None)
    size = data["input_size"][-1]
    if model.input_size != "auto":
        size = model.input_size
    elif _MOST_ENLARGED * stored < size and not (config and config.fixed_input_size):
        enlarged = max(1, _MOST_ENLARGED * stored // _SIZE_STEP) * _SIZE_STEP
        smallest = config.min_input_size[-1] if config and config.min_input_size else 0
        size = min(size, max(smallest, enlarged))
    interpolation: Interpolation = "bicubic" if data["interpolation"] == "bicubic" else "bilinear"
    return Preprocessing(size, interpolation, list(data["mean"]), list(data["std"]))


def _from_classifier(
    model: ModelParams, classes: list[str], path: Path
) -> tuple[Network, Preprocessing, bool]:
    """Return the network, its preprocessing, and whether it keeps its output layer."""
    try:
        old = load_bundle(path)
    except BundleError as err:
        raise TrainingError(f"model.weights: {err}") from err
    new_layers, old_layers = _layers(model.architecture), _layers(old.architecture)
    if new_layers != old_layers:
        values = [
            f"model.{key}: found {_as_yaml(value)}, allowed: {_as_yaml(old_layers[key])}"
            for key, value in new_layers.items()
            if key in old_layers and value != old_layers[key]
        ]
        raise TrainingError(f"model.weights: {path} is another network; {'; '.join(values)}")
    preprocessing = old.preprocessing
    if model.input_size not in ("auto", preprocessing.size):
        raise TrainingError(
            f"model.input_size: found {model.input_size}; {path} takes {preprocessing.size} "
            "pixels; allowed: auto"
        )
    net = build(
        model.architecture,
        input_size=preprocessing.size,
        num_classes=len(old.classes),
        dropout=model.dropout,
    )
    net.load_state_dict(old.net.state_dict())
    head_kept = old.classes == classes
    if not head_kept:
        net.reset_classifier(len(classes))
    return net, preprocessing, head_kept


def _as_yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _layers(architecture: CNNParams | str) -> dict[str, object]:
    """Resolve `filters` and `kernel_size`: equal layers compare equal however params write them."""
    if isinstance(architecture, str):
        return {"name": architecture}
    written = {"first_layer_filters", "filter_org", "max_filters", "dropout"}
    sizes = {"filters": architecture.widths, "kernel_size": architecture.kernels}
    return {"name": "cnn", **architecture.model_dump(exclude=written), **sizes}
