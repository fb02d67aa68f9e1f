"""What a run's experiment is called."""

from __future__ import annotations

import re

from fieldguide.sweeps.space import Scalar, Values


def run_name(sweep: str, number: int, values: Values, seed: int | None) -> str:
    """Name of a run's experiment: unique by its number, and saying its settings.

    `original-0007_cl=5_a=gelu_lr=0.00031_s1`: initials of each parameter's words and its value.
    Git's rules for the names of refs hold (git help check-ref-format).
    """
    settings = "_".join(
        f"{short}={_short(values[key])}" for short, key in _initials(values).items()
    )
    seed_part = "" if seed is None else f"_s{seed}"
    settings = settings[:150].replace(".lock", "-lock").rstrip(".")
    return f"{sweep}-{number:04d}_{settings}{seed_part}"


def _initials(keys: Values) -> dict[str, str]:
    """Initials of the words of each name, with a number where two names share them."""
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
