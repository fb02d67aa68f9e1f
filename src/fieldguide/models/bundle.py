"""The saved classifier: `model.safetensors` and `model.json`, safe to load from a stranger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fieldguide.errors import BundleError
from fieldguide.files import new_folder, write_json
from fieldguide.models.cnn import CNN
from fieldguide.params import Fraction, ModelParams

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


class _Architecture(ModelParams):
    name: Literal["cnn"]


Channels = Annotated[list[Fraction], Field(min_length=3, max_length=3)]  # red, green, blue


class _Description(BaseModel):
    """model.json, checked as strictly as params.yaml: it may come from a stranger."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    architecture: _Architecture
    classes: list[str] = Field(min_length=2)
    image_size: int = Field(ge=8, le=512)
    resize: Literal["crop", "squash"]
    mean: Channels
    std: Channels
    val_acc: Fraction = Field(ge=0, le=1)


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write both files, or neither; the same classifier gives the same bytes."""
    state = {name: value.contiguous().cpu() for name, value in bundle.net.state_dict().items()}
    with new_folder(folder) as aside:
        # Not `save_file`, whose file nobody else may read.
        (aside / "model.safetensors").write_bytes(save(state))
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
        text = (folder / "model.json").read_text(encoding="utf-8")
        found = _Description.model_validate_json(text)
    except OSError as err:
        raise BundleError(f"{err.filename}: cannot be read ({err.strerror})") from err
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"{folder}/model.json: not a classifier's description ('{key}': {first['msg']})"
        ) from err
    except UnicodeDecodeError as err:
        raise BundleError(f"{folder}/model.json: not a classifier's description ({err})") from err
    params = ModelParams.model_validate(found.architecture.model_dump(exclude={"name"}))
    net = CNN(params, image_size=found.image_size, num_classes=len(found.classes))
    weights = folder / "model.safetensors"
    try:
        net.load_state_dict(load_file(weights))
    except OSError as err:
        raise BundleError(f"{weights}: cannot be read ({err.strerror or err})") from err
    except (SafetensorError, RuntimeError) as err:
        raise BundleError(f"{weights}: damaged, or of another network ({err})") from err
    return Bundle(
        net=net.eval().to(memory_format=torch.channels_last),
        params=params,
        classes=found.classes,
        image_size=found.image_size,
        mean=found.mean,
        std=found.std,
        resize=found.resize,
        val_acc=found.val_acc,
    )
