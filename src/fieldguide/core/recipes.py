"""What `auto` means in params.yaml: a value that fits what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Key of section train -> value. docs/recipe.md and docs/finetuning.md say what they are worth.
Recipe = Mapping[str, object]

SCRATCH: Recipe = {
    "epochs": 22,
    "learning_rate": 4e-3,
    "crop": "shift",
    "mixup": 0.0,
    "cutmix": 0.0,
}
# The output layer alone learns from features that are computed once, so that epochs are cheap.
HEAD: Recipe = {
    "epochs": 24,
    "learning_rate": 1e-3,
    "crop": "none",
    "mixup": 0.0,
    "cutmix": 0.0,
}
FINE_TUNING: Recipe = {
    "epochs": 12,
    "learning_rate": 1e-3,
    "crop": "resized",
    "mixup": 0.2,
    "cutmix": 1.0,
}
# Not measured: by analogy with SCRATCH.
FINE_TUNING_CNN: Recipe = {**SCRATCH, "epochs": 12, "learning_rate": 1e-3}
# Optimizer and schedule that the learning rates were found with.
RATE_IS_FOR = ("adamw", "one_cycle")
AUTO_KEYS = {f"train.{key}" for key in SCRATCH}
_AUTO = "auto: "


def _recipe_of(raw: Mapping[str, Any]) -> Recipe:
    """Return the recipe for params that were not checked yet."""
    model = _section(raw, "model")
    if model.get("weights", "none") == "none":
        return SCRATCH
    if model.get("finetune") == "head":
        return HEAD
    return FINE_TUNING_CNN if model.get("name") == "cnn" else FINE_TUNING


def auto_values(raw: Mapping[str, Any]) -> dict[str, object]:
    """Return the value of every key of section train that is `auto`."""
    train = _section(raw, "train")
    return {key: value for key, value in _recipe_of(raw).items() if train.get(key) == "auto"}


def _section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, Mapping) else {}


def describe_auto(values: Mapping[str, object]) -> str:
    """Return the line that says what `auto` became, as "auto: epochs 22, learning_rate 0.004"."""
    return _AUTO + ", ".join(f"{key} {value}" for key, value in values.items())


def parse_auto(text: str) -> dict[str, str]:
    """Return what `describe_auto` wrote as the last line of a text: such as {"epochs": "22"}."""
    line = text.rstrip().rpartition("\n")[2]
    pairs = line.removeprefix(_AUTO).split(", ") if line.startswith(_AUTO) else []
    return {name: value for name, _, value in (pair.partition(" ") for pair in pairs)}
