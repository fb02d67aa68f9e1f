"""What a training starts from: random weights, a download, a file, or an earlier classifier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fieldguide.core.errors import BundleError, TrainingError, is_out_of_memory
from fieldguide.core.params import CNNParams, ModelParams
from fieldguide.core.store import Store
from fieldguide.network.backbones import build
from fieldguide.network.bundle import load_bundle
from fieldguide.network.interface import Network, output_layers
from fieldguide.network.preprocessing import Preprocessing

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

FOLDER = Path("models/weights")  # dvc.yaml has model.weights as a dep there


@dataclass(frozen=True)
class Start:
    """A network before training, and what it takes."""

    net: Network
    preprocessing: Preprocessing
    origin: str  # "none", or the weights' name and SHA-256


def start_of(model: ModelParams, store: Store, folder: Path = FOLDER) -> Start:
    """Build the network that `model` names, with its weights and a head for the store's classes.

    The head is drawn from PyTorch's global generator, unless an earlier classifier knows the very
    same classes. Preprocessing is that of the weights; without any, the store's.

    Raises:
        TrainingError: weights cannot be read, downloaded, or are of another network.
    """
    classes = len(store.classes)
    if model.weights == "none":
        size = store.image_size if model.input_size == "auto" else model.input_size
        net = _random(model, classes, size)
        _try(net, model, size)
        return Start(net, Preprocessing(size, "bilinear", store.mean, store.std), "none")
    path, head_kept = folder / model.weights, False
    if model.weights == "pretrained":
        net, preprocessing = _download(model, classes)
    elif path.is_dir():
        net, preprocessing, head_kept = _from_classifier(model, store.classes, path)
    elif model.name == "cnn":
        raise TrainingError(
            f"{path}: is no classifier (a folder with model.json); allowed for model.name: cnn are "
            "none and earlier classifiers"
        )
    else:
        net, preprocessing = _from_file(model, classes, path)
    _try(net, model, preprocessing.size)
    found = backbone_sha256(net, with_head=head_kept)
    return Start(net, preprocessing, f"{model.weights} (SHA-256 {found[:12]})")


def backbone_sha256(net: Network, *, with_head: bool = False) -> str:
    """Hash of all weights and statistics; of the output layer's where it is not a new one."""
    head = {id(p) for layer in output_layers(net) for p in layer.parameters()}
    digest = hashlib.sha256()
    for name, value in net.state_dict(keep_vars=True).items():
        if with_head or id(value) not in head:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _random(model: ModelParams, classes: int, size: int) -> Network:
    try:
        return build(
            model.architecture, input_size=size, num_classes=classes, dropout=model.dropout
        )
    except Exception as err:  # an assertion in one of timm's networks, a shape in another
        if is_out_of_memory(err):
            raise MemoryError from err
        if model.name == "cnn":  # whose sizes params.py has checked
            raise
        raise _other_size(model, size, err) from err


def _try(net: Network, model: ModelParams, size: int) -> None:
    """Refuse one of timm's networks that cannot be trained here, before it is."""
    if model.name == "cnn":
        return
    try:
        try_size(net, size)
    except Exception as err:  # an assertion in one of timm's networks, a shape in another
        raise _other_size(model, size, err) from err


def try_size(net: Network, size: int) -> None:
    """Show a black photo to a network, which raises anything where it does not take that size."""
    net.eval()
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size))
    finally:
        net.train()


def _other_size(model: ModelParams, size: int, err: Exception) -> TrainingError:
    own = _preprocessing(model.model_copy(update={"input_size": "auto"})).size
    return TrainingError(
        f"model.input_size: {model.name} does not take {size} pixels "
        f"({type(err).__name__}: {_first_lines(err)}); allowed: what it takes, as its own {own}"
    )


def _download(model: ModelParams, classes: int) -> tuple[Network, Preprocessing]:
    config = _config_of(model.name)
    if config is None or not config.has_weights:
        raise TrainingError(
            f"model.weights: timm has no pretrained weights for {model.name}; allowed: none, or "
            f"a file in {FOLDER}/"
        )
    preprocessing = _preprocessing(model)
    try:
        net = build(
            model.architecture,
            input_size=preprocessing.size,
            num_classes=config.num_classes,
            dropout=model.dropout,
            pretrained=True,
        )
    except Exception as err:  # the network, the hub's answer, the disk: timm wraps none of them
        raise TrainingError(
            f"model.weights: pretrained weights of {model.name} cannot be downloaded "
            f"({type(err).__name__}: {_first_lines(err)}); without a way to the hub put a file "
            f"into {FOLDER}/ and name it: docs/finetuning.md"
        ) from err
    # Also where it has as many classes: they are others.
    net.reset_classifier(classes)
    return net, preprocessing


def _from_file(model: ModelParams, classes: int, path: Path) -> tuple[Network, Preprocessing]:
    state = _read_state(path)
    # Loaded strictly, with as many classes as the file has: only then is nothing left random.
    preprocessing = _preprocessing(model)
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
    except Exception as err:  # each of timm's networks converts old files in its own way
        raise TrainingError(
            f"{path}: holds other weights than those of model.name: {model.name} "
            f"({_first_lines(err)}); allowed: weights of that network, named as in timm"
        ) from err
    vars(net)["pretrained_cfg"].pop("state_dict")  # a second copy of all weights in memory
    net.reset_classifier(classes)
    return net, preprocessing


def _read_state(path: Path) -> dict[str, Any]:
    from timm.models import load_state_dict  # noqa: PLC0415 - slow, and not for the CNN

    allowed = "allowed: named tensors, as safetensors or torch.save write a state dict"
    if not path.is_file():
        raise TrainingError(
            f"{path}: is missing; model.weights names a file or classifier there, allowed: none, "
            "pretrained too"
        )
    try:
        # Of a pickled checkpoint weights alone: it may come from a stranger.
        state = load_state_dict(str(path), weights_only=True)
    except Exception as err:  # damage, and pickles of other things, show in many ways
        found = f"{type(err).__name__}: {str(err).partition('. ')[0]}"
        raise TrainingError(f"{path}: cannot be read as weights ({found}); {allowed}") from err
    # timm would take an empty one for none, and download.
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(f"{path}: found other things than weights; {allowed}")
    return dict(state)


def _classes_of(state: dict[str, Any], name: str) -> int:
    """Length of the output layer in a file of weights; 0 where it has none."""
    config = _config_of(name)
    layer = config.classifier if config else None
    layer = layer[0] if isinstance(layer, list | tuple) else layer
    weight = state.get(f"{layer}.weight")
    return len(weight) if isinstance(weight, Tensor) else 0


def _config_of(name: str) -> PretrainedCfg | None:
    from timm.models import get_pretrained_cfg  # noqa: PLC0415 - slow, and not for the CNN

    return get_pretrained_cfg(name)


def _first_lines(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    text = " ".join(lines[:2])
    return f"{text[:300]}…" if len(text) > 300 else text  # noqa: PLR2004


def _preprocessing(model: ModelParams) -> Preprocessing:
    """What timm's weights of this name were trained with, at the size asked for."""
    from timm.data import resolve_data_config  # noqa: PLC0415 - slow, and not for the CNN

    config = _config_of(model.name)
    found = resolve_data_config(pretrained_cfg=config.to_dict() if config else None)
    size = found["input_size"][-1] if model.input_size == "auto" else model.input_size
    interpolation: Literal["bilinear", "bicubic"] = (
        "bicubic" if found["interpolation"] == "bicubic" else "bilinear"
    )
    return Preprocessing(size, interpolation, list(found["mean"]), list(found["std"]))


def _from_classifier(
    model: ModelParams, classes: list[str], path: Path
) -> tuple[Network, Preprocessing, bool]:
    """Return the network, its preprocessing, and whether its head is kept: the classes are same."""
    try:
        old = load_bundle(path)
    except BundleError as err:
        raise TrainingError(f"model.weights: {err}") from err
    asked, theirs = model.architecture, old.architecture
    if _layers(asked) != _layers(theirs):
        text = _differences(asked, theirs)
        raise TrainingError(f"model.weights: {path} is another network: {text}")
    preprocessing = old.preprocessing
    if model.input_size not in ("auto", preprocessing.size):
        raise TrainingError(
            f"model.input_size: found {model.input_size}; {path} takes {preprocessing.size} "
            "pixels; allowed: auto"
        )
    net = build(
        asked,
        input_size=preprocessing.size,
        num_classes=len(old.classes),
        dropout=model.dropout,
    )
    net.load_state_dict(old.net.state_dict())
    head_kept = old.classes == classes
    if not head_kept:
        net.reset_classifier(len(classes))
    return net, preprocessing, head_kept


def _layers(architecture: CNNParams | str) -> object:
    """What has weights, however it was written."""
    if isinstance(architecture, str):
        return architecture
    written = {"first_layer_filters", "filter_org", "filters", "kernel_size", "dropout"}
    sizes = {"widths": architecture.widths, "kernels": architecture.kernels}
    return architecture.model_dump(exclude=written) | sizes


def _differences(asked: CNNParams | str, found: CNNParams | str) -> str:
    def values(one: CNNParams | str) -> dict[str, object]:
        if isinstance(one, str):
            return {"name": one}
        return {"name": "cnn", **one.model_dump(exclude={"dropout"})}  # which has no weights

    left, right = values(asked), values(found)
    keys = [key for key in left if key in right and left[key] != right[key]]
    return ", ".join(f"model.{key} is {left[key]}, its own {right[key]}" for key in keys)
