"""Names of sweeps and of their experiments, by Git's rules for refs (git help check-ref-format)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from fieldguide.sweeps.space import Scalar, Values


def trial_name(sweep: str, number: int, values: Values, seed: int | None) -> str:
    """Name the experiment of a trial by its number, which makes it unique, and its settings.

    `original-0007_cl=5_a=gelu_lr=0.00031_s1`: the initials of each parameter's words and its value.
    """
    settings = "_".join(
        f"{short}={_short(values[key])}" for short, key in _initials(values).items()
    )
    suffix = "" if seed is None else f"_s{seed}"
    settings = settings[:150].replace(".lock", "-lock").rstrip(".")
    return f"{sweep}-{number:04d}_{settings}{suffix}"


def name_in_repository(sweep: str, subfolder: str) -> str:
    """Return a sweep's name that no other project of the Git repository uses: birds.original.

    All of them keep their experiments in the same refs.
    """
    folders = (re.sub(r"[^A-Za-z0-9]+", "-", part) for part in PurePosixPath(subfolder).parts)
    return ".".join([*filter(None, (folder.strip("-") for folder in folders)), sweep])


def _initials(keys: Values) -> dict[str, str]:
    """Return each key by the initials of its words, with a number where two keys share them."""
    found: dict[str, str] = {}
    for key in keys:
        initials = "".join(word[0] for word in key.split(".")[1].split("_"))
        short, count = initials, 1
        while short in found:
            count += 1
            short = f"{initials}{count}"
        found[short] = key
    return found


def _short(value: Scalar) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value).lower()
    return re.sub(r"\.(?=\.|$)|[^A-Za-z0-9.+-]", "-", text)
