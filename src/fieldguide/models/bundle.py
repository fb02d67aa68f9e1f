"""The saved classifier: `model.safetensors` and `model.json`, safe to load from a stranger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fieldguide.errors import BundleError
from fieldguide.files import new_folder, write_json
from fieldguide.models.cnn import CNN
from fieldguide.params import ModelParams

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A classifier and all it takes to use it."""

    net: CNN
    params: ModelParams
    classes: list[str]
    image_size: int  # pixels
    mean: list[float]  # per channel, [0, 1]
    std: list[float]
    resize: str  # "crop" or "squash": how a photo becomes a square
    val_acc: float  # fraction, of the epoch that was kept


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write both files, or neither; the same classifier gives the same bytes."""
    state = {name: value.contiguous().cpu() for name, value in bundle.net.state_dict().items()}
    with new_folder(folder) as aside:
        save_file(state, aside / "model.safetensors")
        write_json(
            aside / "model.json",
            {
                "format": FORMAT,
                "architecture": {"name": "cnn", **bundle.params.model_dump()},
                "classes": bundle.classes,
                "image_size": bundle.image_size,
                "resize": bundle.resize,
                "mean": bundle.mean,
                "std": bundle.std,
                "val_acc": bundle.val_acc,
            },
        )


def load_bundle(folder: Path) -> Bundle:
    """Rebuild the network, in eval mode, on the CPU.

    Raises:
        BundleError: a file is missing or damaged, or weights and architecture do not belong
            together.
    """
    try:
        info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        architecture = dict(info["architecture"])
        name = architecture.pop("name")
        if (info["format"], name) != (FORMAT, "cnn"):
            raise BundleError(
                f"{folder}/model.json: found format {info['format']} of {name!r}; "
                f"allowed: format {FORMAT} of 'cnn'"
            )
        params = ModelParams.model_validate(architecture)
        net = CNN(params, image_size=info["image_size"], num_classes=len(info["classes"]))
        net.load_state_dict(load_file(folder / "model.safetensors"))
        return Bundle(
            net=net.eval().to(memory_format=torch.channels_last),
            params=params,
            classes=list(info["classes"]),
            image_size=info["image_size"],
            mean=info["mean"],
            std=info["std"],
            resize=info["resize"],
            val_acc=info["val_acc"],
        )
    except OSError as err:
        raise BundleError(f"{err.filename}: cannot be read ({err.strerror})") from err
    except (ValueError, TypeError, KeyError, ValidationError) as err:
        raise BundleError(f"{folder}/model.json: not a classifier's description ({err})") from err
    except (SafetensorError, RuntimeError) as err:
        raise BundleError(
            f"{folder}/model.safetensors: damaged, or of another network ({err})"
        ) from err
