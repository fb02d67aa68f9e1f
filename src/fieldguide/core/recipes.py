"""What `auto` means in params.yaml: a value that fits what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Section -> key -> value. docs/recipe.md and docs/finetuning.md say what they are worth.
Recipe = Mapping[str, Mapping[str, object]]

SCRATCH: Recipe = {
    "train": {
        "epochs": 22,
        "learning_rate": 4e-3,
        "crop": "shift",
        "mixup": 0.0,
        "cutmix": 0.0,
    },
}
# The output layer alone learns from features that are computed once, so that epochs are cheap.
HEAD: Recipe = {
    "train": {
        "epochs": 24,
        "learning_rate": 1e-3,
        "crop": "none",
        "mixup": 0.0,
        "cutmix": 0.0,
    },
}
FINE_TUNING: Recipe = {
    "train": {
        "epochs": 12,
        "learning_rate": 1e-3,
        "crop": "resized",
        "mixup": 0.2,
        "cutmix": 1.0,
    },
}
_CHOSEN = "auto: "
KEYS = {f"{section}.{key}" for section, values in SCRATCH.items() for key in values}


def recipe_of(raw: Mapping[str, Any]) -> Recipe:
    """Return the recipe for params that were not checked yet."""
    model = raw.get("model")
    found = model if isinstance(model, Mapping) else {}
    if found.get("weights", "none") == "none":
        return SCRATCH
    return HEAD if found.get("finetune") == "head" else FINE_TUNING


def chosen(raw: Mapping[str, Any]) -> dict[str, object]:
    """Return the value of every param that is `auto`, by its name, such as train.epochs."""
    return {
        f"{section}.{key}": value
        for section, values in recipe_of(raw).items()
        for key, value in values.items()
        if isinstance(raw.get(section), Mapping) and raw[section].get(key) == "auto"
    }


def describe_chosen(values: Mapping[str, object]) -> str:
    """Return the line that says what `auto` became, as "auto: epochs 24, learning_rate 0.004"."""
    pairs = ((name.partition(".")[2], value) for name, value in values.items())
    return _CHOSEN + ", ".join(f"{key} {value}" for key, value in pairs)


def parse_chosen(text: str) -> dict[str, str]:
    """Return what `describe_chosen` wrote as the last line of a text: values by key, as epochs."""
    line = text.rstrip().rpartition("\n")[2]
    pairs = line.removeprefix(_CHOSEN).split(", ") if line.startswith(_CHOSEN) else []
    return {name: value for name, _, value in (pair.partition(" ") for pair in pairs)}
