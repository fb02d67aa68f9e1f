"""What `auto` means in params.yaml: a value that fits what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Section -> key -> value. docs/recipe.md and docs/finetuning.md say where they come from.
Recipe = Mapping[str, Mapping[str, object]]

SCRATCH: Recipe = {
    "train": {
        "epochs": 22,
        "learning_rate": 4e-3,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "crop": "shift",
        "ema_decay": 0.0,
    },
}
# The output layer alone learns from features that are computed once, so that epochs are cheap.
HEAD: Recipe = {
    "train": {
        "epochs": 24,
        "learning_rate": 1e-3,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "crop": "none",
        "ema_decay": 0.0,
    },
}
FINE_TUNING: Recipe = {
    "train": {
        "epochs": 10,
        "learning_rate": 1e-3,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "crop": "resized",
        "ema_decay": 0.0,
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
    """Return the line that says what `auto` became, as "auto: train.epochs 24, ..."."""
    return _CHOSEN + ", ".join(f"{name} {value}" for name, value in values.items())


def parse_chosen(text: str) -> dict[str, str]:
    """Return what `describe_chosen` wrote as the last line of a text; empty without such a line."""
    line = text.rstrip().rpartition("\n")[2]
    pairs = line.removeprefix(_CHOSEN).split(", ") if line.startswith(_CHOSEN) else []
    return {name: value for name, _, value in (pair.partition(" ") for pair in pairs)}
