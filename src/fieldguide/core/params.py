"""The only reader of params.yaml: one frozen, checked model for each section."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fieldguide.core.errors import ParamsError
from fieldguide.core.recipes import AUTO_KEYS, auto_values

_SIZES = range(8, 513)  # pixels
PixelSize = Annotated[int, Field(ge=_SIZES[0], le=_SIZES[-1])]
_WIDTHS = range(1, 8193)  # filters of a block; more in a single layer would fill a GPU
_WEIGHTS_FILES = (".safetensors", ".pth", ".pt", ".bin")
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # the range of NumPy and scikit-learn
TargetPrecision = Annotated[FiniteFloat, Field(gt=0.5, lt=1)]  # share of right answers
Monitor = Literal["val/acc", "val/macro_f1", "val/loss"]  # what decides which epoch is kept
GOALS: dict[Monitor, Literal["maximize", "minimize"]] = {
    "val/acc": "maximize",
    "val/macro_f1": "maximize",
    "val/loss": "minimize",
}


M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Base class: frozen; unknown keys and conversions (such as "3" to 3) are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# Fields of several types have their own checks, as pydantic reports an error for each type.
def _archive(value: object) -> str | list[str]:
    paths = value if isinstance(value, list) else [value]
    if paths and all(isinstance(path, str) and path for path in paths):
        return value  # type: ignore[return-value]
    raise ValueError(f"data.archive: found {value!r}; allowed: a path, or a list of paths")


def _group(value: object) -> str | list[str]:
    names = value if isinstance(value, list) else []
    if names and all(isinstance(name, str) and name.strip() for name in names):
        return names
    reason = ""
    if isinstance(value, str):
        if value == "none":
            return value
        try:
            count = re.compile(value).groups
        except re.error as err:
            reason = f" ({err})"
        else:
            if count == 1:
                return value
            reason = f" (a regular expression with {count} groups)"
    raise ValueError(
        f"data.group: found {value!r}{reason}; allowed: none, a list of columns of the label table "
        "such as [site, sequence], or a regular expression with one group in round brackets"
    )


class DataParams(Section):
    """What `prepare` reads."""

    archive: Annotated[str | list[str], PlainValidator(_archive)]  # relative to the project
    labels: str = Field(min_length=1)  # none, a file of the project, or one of the archive
    group: Annotated[str | list[str], PlainValidator(_group)]
    near_copies: bool
    burst_seconds: FiniteFloat = Field(ge=0, le=86_400)  # 0: no bursts
    min_photos: int = Field(ge=1, le=1_000_000)  # of a class
    rare: Literal["drop", "merge"]
    image_size: PixelSize
    resize: Literal["crop", "squash"]
    val_fraction: FiniteFloat = Field(ge=0.01, le=0.5)
    test_fraction: FiniteFloat = Field(ge=0.01, le=0.5)
    min_size: int = Field(ge=1, le=512)  # pixels
    max_unreadable: FiniteFloat = Field(ge=0, le=1)
    shard_size: int = Field(ge=1, le=1024)  # MiB
    engine: Literal["local", "ray"]
    seed: Seed

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if isinstance(self.group, list) and self.labels == "none":
            raise ValueError(
                f"data.group: found {self.group}, columns of a label table, and data.labels is "
                "none; allowed without a table: none, or a regular expression with one group"
            )
        return self

    @property
    def group_columns(self) -> list[str]:
        """Columns of the label table that name a photo's group; empty if there are none."""
        return self.group if isinstance(self.group, list) else []


def _input_size(value: object) -> int | Literal["auto"]:
    if value == "auto" or (type(value) is int and value in _SIZES):
        return value
    raise ValueError(
        f"model.input_size: found {value!r}; allowed: auto, or {_SIZES[0]} to {_SIZES[-1]} pixels"
    )


def _kernels(value: object) -> int | list[int]:
    sizes = value if isinstance(value, list) and value else [value]
    if all(type(size) is int and size in range(1, 12, 2) for size in sizes):
        return value  # type: ignore[return-value]
    raise ValueError(
        f"model.kernel_size: found {value!r}; allowed: an odd number of pixels from 1 to 11, or a "
        "list with one for each block"
    )


def _filters(value: object) -> list[int] | Literal["auto"]:
    widths = value if isinstance(value, list) else []
    if value == "auto" or (widths and all(type(n) is int and n in _WIDTHS for n in widths)):
        return value  # type: ignore[return-value]
    raise ValueError(
        f"model.filters: found {value!r}; allowed: auto, or a list of {_WIDTHS[0]} to "
        f"{_WIDTHS[-1]} filters for each block"
    )


class CNNParams(Section):
    """The network of the course; the names are those of the original search space."""

    conv_layers: int = Field(ge=1, le=8)
    first_layer_filters: int = Field(ge=1, le=1024)
    filter_org: FiniteFloat = Field(ge=0.25, le=4)
    max_filters: int = Field(ge=_WIDTHS[0], le=_WIDTHS[-1])
    filters: Annotated[list[int] | Literal["auto"], PlainValidator(_filters)]
    kernel_size: Annotated[int | list[int], PlainValidator(_kernels)]  # pixels
    residual_units: int = Field(ge=0, le=4)
    whitening: bool
    activation: Literal["relu", "gelu", "silu", "mish"]
    batch_norm: bool
    norm_after_activation: bool
    pooling: Literal["flatten", "average"]
    num_neurons_dense: int = Field(ge=0, le=8192)
    dropout: FiniteFloat = Field(ge=0, le=0.95)

    @property
    def widths(self) -> list[int]:
        """Filters of each block: the list, or first_layer_filters × filter_org^k in its limits."""
        if self.filters != "auto":
            return self.filters
        return [
            min(self.max_filters, max(1, round(self.first_layer_filters * self.filter_org**k)))
            for k in range(self.conv_layers)
        ]

    @property
    def smallest_input(self) -> int:
        """Smallest input, in pixels: each block halves it, and one pixel must remain."""
        return int(2**self.conv_layers)

    @property
    def kernels(self) -> list[int]:
        """Kernel size of each block, in pixels."""
        size = self.kernel_size
        return size if isinstance(size, list) else [size] * self.conv_layers

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        for name, values in (("filters", self.widths), ("kernel_size", self.kernels)):
            if len(values) != self.conv_layers:
                raise ValueError(
                    f"model.{name}: found {len(values)} entries; allowed: one for each of "
                    f"model.conv_layers: {self.conv_layers}"
                )
        if self.filters == "auto" and self.first_layer_filters > self.max_filters:
            raise ValueError(
                f"model.first_layer_filters: found {self.first_layer_filters}; allowed: at most "
                f"model.max_filters, {self.max_filters}"
            )
        return self


class ModelParams(CNNParams):
    """The network, the weights it starts from, and the layers that are trained."""

    name: str = Field(min_length=1)  # cnn, or a model of timm
    input_size: Annotated[int | Literal["auto"], PlainValidator(_input_size)]
    weights: str  # none, pretrained, or a file or classifier in models/weights/
    finetune: Literal["head", "last_k", "gradual", "full"]
    last_k: int = Field(ge=1, le=1000)  # blocks
    layer_decay: FiniteFloat = Field(gt=0, le=1)

    @property
    def architecture(self) -> CNNParams | str:
        """Params of the CNN, or the name of a model of timm."""
        if self.name != "cnn":
            return self.name
        return CNNParams.model_validate(self.model_dump(include=set(CNNParams.model_fields)))

    @property
    def head_only(self) -> bool:
        """True if only the output layer is trained, on features that are computed once."""
        return self.finetune == "head"

    @property
    def backbone(self) -> dict[str, object]:
        """The params that the features depend on; the features depend on the weights too."""
        architecture = self.architecture
        if isinstance(architecture, str):
            return {"name": architecture}
        return {"name": "cnn", **architecture.model_dump(exclude={"dropout"})}

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.name != "cnn":
            check_timm_name(self.name)
        valid = re.fullmatch(r"[\w.-]+(/[\w.-]+)*", self.weights)
        if not valid or ".." in self.weights.split("/") or self.weights.startswith("models/"):
            raise ValueError(
                f"model.weights: found {self.weights!r}; allowed: none, pretrained, or the name of "
                "a file or classifier in models/weights/, without that folder"
            )
        if self.weights == "none" and self.finetune != "full":
            raise ValueError(
                f"model.finetune: {self.finetune} would freeze random weights, because "
                "model.weights is none; allowed with none: full"
            )
        for_timm = self.weights.endswith(_WEIGHTS_FILES) or self.weights == "pretrained"
        if self.name == "cnn" and for_timm:
            raise ValueError(
                f"model.weights: {self.weights} is for networks of timm, and model.name is cnn; "
                "allowed with cnn: none, or a classifier in models/weights/"
            )
        return self


def check_timm_name(name: str) -> str:
    """Return the name if timm has such a model; the name may end in a tag of pretrained weights.

    Raises:
        ValueError: timm has no such model.
    """
    import timm  # noqa: PLC0415 - takes two seconds, and the cnn does not need it

    architecture = name.partition(".")[0]
    known = timm.list_models(include_tags=False)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.lower(), ["cnn", *known], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"model.name: found {name!r}; allowed: cnn, or one of the {len(known):,} of "
            f"timm.list_models(){hint}"
        )
    if name != architecture and not timm.is_model_pretrained(name):
        tags = timm.list_pretrained(f"{architecture}.*")
        allowed = ", ".join([architecture, *tags])
        raise ValueError(f"model.name: timm has no weights {name}; allowed: {allowed}")
    return name


class TrainParams(Section):
    """How the network is trained."""

    batch_size: int = Field(ge=1, le=8192)  # images per step and device
    epochs: int = Field(ge=1, le=10_000)
    stop_after: int = Field(ge=0, le=10_000)  # epochs; 0: none
    patience: int = Field(ge=1, le=10_000)  # epochs
    monitor: Monitor
    optimizer: Literal["adam", "adamw", "muon", "nadam", "rmsprop", "sgd"]
    learning_rate: FiniteFloat = Field(gt=0, le=10)
    schedule: Literal["one_cycle", "cosine", "constant"]
    warmup: FiniteFloat = Field(ge=0, le=0.9)  # of all steps
    weight_decay: FiniteFloat = Field(ge=0, le=1)
    gradient_clipping: FiniteFloat = Field(ge=0)
    ema_decay: FiniteFloat = Field(ge=0, lt=1)
    label_smoothing: FiniteFloat = Field(ge=0, le=0.5)
    balance: Literal["none", "weights", "sampler", "logit_adjustment"]
    balance_beta: FiniteFloat = Field(ge=0, le=1)
    use_augmentation: bool
    crop: Literal["shift", "resized", "none"]
    crop_area: FiniteFloat = Field(gt=0, le=1)
    color_jitter: FiniteFloat = Field(ge=0, le=0.9)
    random_erasing: FiniteFloat = Field(ge=0, le=1)
    mixup: FiniteFloat = Field(ge=0, le=10)  # alpha of a Beta distribution; 0: none
    cutmix: FiniteFloat = Field(ge=0, le=10)
    start_size: FiniteFloat = Field(ge=0.25, le=1)
    train_on_val: bool
    target_precision: TargetPrecision
    # `dvc exp run -S train.precision=32` writes a number.
    precision: Annotated[
        Literal["32", "16-mixed", "bf16-mixed"],
        BeforeValidator(lambda value: "32" if value == 32 else value),  # noqa: PLR2004
    ]
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: int = Field(ge=1, le=64)  # processes on each machine
    num_nodes: int = Field(ge=1, le=1024)  # machines
    strategy: Literal["auto", "ddp"]
    compile: bool
    seed: Seed

    @property
    def processes(self) -> int:
        """Number of training processes on all machines together."""
        return self.devices * self.num_nodes

    @property
    def uses_ddp(self) -> bool:
        """True if DistributedDataParallel averages the gradients."""
        return self.processes > 1 or self.strategy == "ddp"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stop_after > self.epochs:
            raise ValueError(
                f"train.stop_after: found {self.stop_after}; allowed: at most train.epochs, "
                f"{self.epochs}"
            )
        if self.accelerator == "mps" and self.uses_ddp:
            raise ValueError(
                "train.accelerator: mps is a single device; found train.devices: "
                f"{self.devices}, train.num_nodes: {self.num_nodes}, train.strategy: "
                f"{self.strategy}; allowed with mps: 1, 1 and auto"
            )
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError(
                'train.precision: "16-mixed" needs a GPU, and train.accelerator is cpu; '
                'allowed with cpu: "32", "bf16-mixed"'
            )
        return self


class ComputeParams(Section):
    """How `train`, `evaluate` and `visualize` compute."""

    portable: bool
    threads: int = Field(ge=1, le=64)


class EvaluateParams(Section):
    """What `evaluate` reads."""

    calibration_bins: int = Field(ge=2, le=100)
    flip_averaging: bool


class VisualizeParams(Section):
    """What `visualize` reads."""

    photos_per_class: int = Field(ge=1, le=10)
    neurons: int = Field(ge=1, le=50)
    seed: Seed


class Params(Section):
    """All of params.yaml; `auto` is replaced by the value that fits what is trained."""

    _asked: dict[str, Any] = PrivateAttr()

    compute: ComputeParams
    data: DataParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    visualize: VisualizeParams

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, raw: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Replace `auto` by a value, and keep what was asked for."""
        if not isinstance(raw, dict):
            return check(raw)
        filled = copy.deepcopy(raw)
        for key, value in auto_values(raw).items():
            filled["train"][key] = value
        found = check(filled)
        found._asked = copy.deepcopy(raw)  # noqa: SLF001 - of this very class
        return found

    @property
    def asked(self) -> dict[str, Any]:
        """A copy of what was asked for: the same as `model_dump`, but with `auto`."""
        return copy.deepcopy(self._asked)

    @property
    def auto_values(self) -> dict[str, object]:
        """The value of every key of section train that is `auto`."""
        return auto_values(self._asked)

    @model_validator(mode="after")
    def _check_portable(self) -> Self:
        reasons = {
            "accelerator": "a GPU rounds in its own way",
            "precision": "processors multiply numbers of 16 bits in different ways",
            "compile": "it writes code for this very processor",
        }
        allowed = {"accelerator": ("auto", "cpu"), "precision": ("32",), "compile": (False,)}
        for key, reason in reasons.items():
            found = getattr(self.train, key)
            if self.compute.portable and found not in allowed[key]:
                shown = ", ".join(str(value).lower() for value in allowed[key])
                raise ValueError(
                    f"train.{key}: found {str(found).lower()}; allowed with compute.portable: "
                    f"{shown}; {reason}, so set compute.portable: false"
                )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.name != "cnn":
            return self
        model, key = self.model, "model.input_size"
        # Features have one size in all epochs.
        start_size = 1.0 if model.head_only else self.train.start_size
        if start_size < 1 and model.pooling == "flatten":
            raise ValueError(
                f"train.start_size: {start_size} needs a network for photos of any size, and "
                "model.pooling is flatten; allowed with flatten: 1.0; or set model.pooling: average"
            )
        if model.input_size != "auto":
            size = model.input_size
        elif model.weights == "none":
            size, key = self.data.image_size, "data.image_size"
        else:
            return self  # the classifier to start from decides the size
        smallest = epoch_size(size, start_size, 0, of=self.train.epochs)
        if smallest < model.smallest_input:
            growing = f" × train.start_size {start_size}" if start_size < 1 else ""
            raise ValueError(
                f"model.conv_layers: {model.conv_layers} blocks halve {key} {size}{growing} to "
                f"nothing; allowed: 1 to {smallest.bit_length() - 1}"
            )
        side = size // 2**model.conv_layers if model.pooling == "flatten" else 1
        neurons = model.num_neurons_dense or 2  # without a dense layer: two classes or more
        weights = model.widths[-1] * side**2 * neurons
        if weights > 2**28:
            raise ValueError(
                f"model.num_neurons_dense: {neurons} neurons over {side}×{side} pixels of "
                f"{model.widths[-1]} filters need {weights:,} weights; allowed: {2**28:,} (1 GiB); "
                "increase model.conv_layers or set model.pooling: average"
            )
        return self


def epoch_size(size: int, start: float, epoch: int, *, of: int) -> int:
    """Return the photos' size in one epoch: it grows evenly, and is full in the last third.

    Before that it is a multiple of 8, so that three blocks can halve it without a remainder.

    Args:
        size: full size, in pixels.
        start: fraction of the full size in the first epoch.
        epoch: from 0.
        of: number of epochs.

    Source: Tan & Le 2021, section 4 (https://arxiv.org/abs/2104.00298).
    """
    growing = of * 2 // 3  # epochs
    if start == 1 or epoch >= growing:
        return size
    grown = start + (1 - start) * epoch / growing
    return min(size, max(8, round(size * grown / 8) * 8))


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check every section; see `load_yaml`."""
    return load_yaml(path, Params)


def load_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file and check it.

    Args:
        path: of the file.
        model: says which keys the file has.

    Raises:
        ParamsError: the file is missing or not YAML, or a key is unknown, missing, duplicate, of
            the wrong type, out of range, or contradicts another key. The message lists every error.
    """
    raw = read_yaml(path, YAML(typ="safe", pure=True).load)
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: found {type(raw).__name__}; allowed: a mapping of sections")
    try:
        return model.model_validate(raw)
    except ValidationError as err:
        problems = "\n".join(f"  {describe(error, model)}" for error in err.errors())
        raise ParamsError(f"{path}:\n{problems}") from err


def read_yaml(path: Path, parse: Callable[[str], Any]) -> Any:
    """Read a file with a parser of ruamel.yaml.

    Like DVC, they read YAML 1.2, in which 1e-05 is a number and a duplicate key is an error.

    Raises:
        ParamsError: the file cannot be read or is not YAML.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ParamsError(f"{path}: cannot be read ({err.strerror})") from err
    except UnicodeDecodeError as err:
        raise ParamsError(f"{path}: is not UTF-8 text (byte {err.start})") from err
    except MarkedYAMLError as err:
        where = f" in line {err.problem_mark.line + 1}" if err.problem_mark else ""
        raise ParamsError(f"{path}: is not valid YAML: {err.problem}{where}") from err
    except YAMLError as err:
        problem = " ".join(str(err).split())  # in one line
        raise ParamsError(f"{path}: is not valid YAML: {problem}") from err


def describe(error: Any, model: type[BaseModel]) -> str:
    """Return one line about one of pydantic's errors: key, value found, what is allowed.

    Args:
        error: one of `ValidationError.errors()`.
        model: the class that was validated.
    """
    key = ".".join(str(name) for name in error["loc"])
    kind, found = error["type"], error["input"]
    if kind == "value_error":  # from a check in this file, which names its keys
        return str(error["ctx"]["error"])
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_hint(error['loc'], model)}"
    if kind == "invalid_key":
        return f"{key}: the key is not text"
    if kind == "missing":
        return f"{key}: missing"
    shown = "null" if found is None else repr(found)
    if kind == "model_type":
        return f"{key}: found {shown}; allowed: a section of keys"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    allowed = f"auto, or {allowed}" if key in AUTO_KEYS else allowed
    return f"{key}: found {shown}; allowed: {allowed}"


def _hint(location: tuple[str, ...], model: Any) -> str:
    """Suggest a key in place of an unknown one."""
    for key in location[:-1]:
        if key in model.model_fields:  # others are free names, as in dict[str, Section]
            found = model.model_fields[key].annotation
            # `Section | None` and `dict[str, Section]` become `Section`.
            types = (found, *get_args(found))
            model = next((one for one in types if hasattr(one, "model_fields")), model)
    return did_you_mean(location[-1], list(model.model_fields))


def did_you_mean(name: str, known: list[str]) -> str:
    """Return the end of a message about an unknown name: the closest known name, or all."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(known)}"
