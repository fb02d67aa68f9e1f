"""The saved classifier: `model.safetensors` and `model.json`, safe to load from a stranger."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fieldguide.core.errors import BundleError
from fieldguide.core.files import new_folder, write_json
from fieldguide.core.params import CNNParams, PixelSize, check_timm_name
from fieldguide.network.backbones import build
from fieldguide.network.calibration import Calibration
from fieldguide.network.interface import Network
from fieldguide.network.preprocessing import Interpolation, Preprocessing

FORMAT = 5


@dataclass(frozen=True)
class Bundle:
    """A classifier and everything that is needed to use it."""

    net: Network
    architecture: CNNParams | str  # settings of the CNN, or the name of a model of timm
    classes: list[str]
    image_size: int  # pixels of a stored photo
    resize: Literal["crop", "squash"]  # how a photo becomes a square
    preprocessing: Preprocessing  # turns a stored photo into network input
    val_acc: float | None  # fraction, of the epoch that was kept; None: trained on all photos
    started_from: str  # "none", or name and hash of the weights that training started from
    calibration: Calibration | None = None  # None: trained on the validation photos too

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the calibrated probability of each class: (B, K) -> (B, K), rows sum to 1."""
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return softmax(scores, temperature)

    @property
    def name(self) -> str:
        """Name of the network: cnn, or its name in timm."""
        return self.architecture if isinstance(self.architecture, str) else "cnn"


def softmax(scores: Tensor, temperature: float) -> Tensor:
    """Return the probabilities of scores that are divided by a temperature: (B, K) -> (B, K).

    Source: Guo et al. 2017, section 4.2 (https://arxiv.org/abs/1706.04599).
    """
    return (scores / temperature).softmax(dim=1)


class _CNN(CNNParams):
    name: Literal["cnn"]


class _Timm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    # Only a name in timm's list: timm would also read "hf-hub:..." and download it.
    name: Annotated[str, AfterValidator(check_timm_name)]


def _kind(architecture: object) -> str:
    """Return which of the two models checks a description, so that only its errors are shown."""
    is_cnn = isinstance(architecture, dict) and architecture.get("name") == "cnn"
    return "cnn" if is_cnn else "timm"


_Architecture = Annotated[
    Annotated[_CNN, Tag("cnn")] | Annotated[_Timm, Tag("timm")], Discriminator(_kind)
]
_Unit = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Channels = Annotated[list[_Unit], Field(min_length=3, max_length=3)]  # red, green, blue


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError("allowed: different names, none of them empty")
    return names


class _Description(BaseModel):
    """model.json, checked as strictly as params.yaml, because it may come from a stranger."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[5]
    architecture: _Architecture
    classes: Annotated[list[str], Field(min_length=2), AfterValidator(_distinct)]
    image_size: PixelSize
    resize: Literal["crop", "squash"]
    input_size: PixelSize
    interpolation: Interpolation
    mean: _Channels
    std: _Channels
    val_acc: _Unit | None
    started_from: str
    calibration: Calibration | None

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if isinstance(self.architecture, _CNN):
            smallest = self.architecture.smallest_input
            if self.input_size < smallest:
                raise ValueError(
                    f"input_size: found {self.input_size}; allowed with conv_layers "
                    f"{self.architecture.conv_layers}: {smallest} or more"
                )
        return self


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write both files or neither; the same classifier gives the same bytes."""
    state = {name: value.contiguous().cpu() for name, value in bundle.net.state_dict().items()}
    architecture = bundle.architecture
    with new_folder(folder) as aside:
        # Not by `save_file`, which makes a file that other users cannot read.
        (aside / "model.safetensors").write_bytes(save(state))
        write_json(
            aside / "model.json",
            {
                "format": FORMAT,
                "architecture": {"name": architecture}
                if isinstance(architecture, str)
                else {"name": "cnn", **architecture.model_dump()},
                "classes": bundle.classes,
                "image_size": bundle.image_size,
                "resize": bundle.resize,
                "input_size": bundle.preprocessing.size,
                "interpolation": bundle.preprocessing.interpolation,
                "mean": bundle.preprocessing.mean,
                "std": bundle.preprocessing.std,
                "val_acc": bundle.val_acc,
                "started_from": bundle.started_from,
                "calibration": asdict(bundle.calibration) if bundle.calibration else None,
            },
        )


def load_bundle(folder: Path) -> Bundle:
    """Rebuild the network, in eval mode, on the CPU.

    Raises:
        BundleError: a file is missing or damaged, or the weights are of another architecture.
    """
    found = _read_description(folder / "model.json")
    if isinstance(found.architecture, _Timm):
        architecture: CNNParams | str = found.architecture.name
    else:
        architecture = CNNParams.model_validate(found.architecture.model_dump(exclude={"name"}))
    # Without memory at first: a stranger's description may claim far more weights than there are.
    cnn = not isinstance(architecture, str)
    try:
        with torch.device("meta") if cnn else nullcontext():
            net = build(architecture, input_size=found.input_size, num_classes=len(found.classes))
    except Exception as err:  # models of timm refuse a size with many kinds of errors
        raise BundleError(
            f"{folder / 'model.json'}: {found.architecture.name} does not take {found.input_size} "
            f"pixels ({err})"
        ) from err
    weights = folder / "model.safetensors"
    try:
        net.load_state_dict(load_file(weights), assign=cnn)
    except OSError as err:
        raise BundleError(f"{weights}: cannot be read ({err.strerror or err})") from err
    except (SafetensorError, RuntimeError) as err:
        raise BundleError(f"{weights}: damaged, or weights of another network ({err})") from err
    return Bundle(
        net=net.eval().to(memory_format=torch.channels_last),
        architecture=architecture,
        classes=found.classes,
        image_size=found.image_size,
        resize=found.resize,
        preprocessing=Preprocessing(
            found.input_size, found.interpolation, mean=found.mean, std=found.std
        ),
        val_acc=found.val_acc,
        started_from=found.started_from,
        calibration=found.calibration,
    )


def _read_description(path: Path) -> _Description:
    try:
        return _Description.model_validate_json(path.read_bytes())
    except OSError as err:
        raise BundleError(f"{path}: cannot be read ({err.strerror}); run `dvc repro`") from err
    except ValidationError as err:
        first = err.errors()[0]
        if first["loc"] == ("format",) and first["type"] == "literal_error":
            raise BundleError(
                f"{path}: format: found {first['input']!r}; allowed: {FORMAT}; it is of another "
                "version of fieldguide: use that one, or train again"
            ) from err
        key = ".".join(map(str, first["loc"]))
        found = first["msg"].removeprefix("Value error, ")
        found = f"'{key}': {found}" if key else found
        raise BundleError(f"{path}: not a classifier's description ({found})") from err
