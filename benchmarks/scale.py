"""Compute bytes, hours and money for 12 thousand, a million and a billion photos.

    python benchmarks/scale.py

Prints the table of docs/scale.md in Markdown. Rates come from rates.jsonl: lines that rates.py
printed, except that the GPU's line is of the sample's training by stages/train.py. PRICES are round
numbers; replace them by yours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATES = Path(__file__).with_name("rates.jsonl")
PHOTOS = (12_000, 1_000_000, 1_000_000_000)
SIZE = 32  # pixels, as in params.yaml
EPOCHS = 24  # the default when the rates were measured
# Dollars; assumed, not measured.
PRICES = {"core-hour": 0.04, "GPU-hour": 3.0, "GB-month": 0.023}
SECONDS = 3600


def load_rates(path: Path = RATES) -> dict[str, dict[str, Any]]:
    """Read the rates, keyed by what was measured; each key occurs once."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates = {line["what"]: line for line in lines}
    assert len(rates) == len(lines)
    return rates


def table(rates: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return the rows of the table, the header first."""
    prepare = rates[f"prepare, 500×375 to {SIZE} pixels"]
    core = rates[f"train, {SIZE} pixels, batch 64, one core"]["photos_per_second"]
    gpu = rates[f"train, {SIZE} pixels, batch 64, NVIDIA H100 80GB HBM3"]["photos_per_second"]
    memory = rates[f"prepare, {SIZE}×{SIZE} to {SIZE} pixels"]["memory_a_photo"]
    rows = [["photos", *(f"{count:,}" for count in PHOTOS)]]

    def row(what: str, of_one: float, show: Callable[[float], str], price: float = 0.0) -> None:
        cells = []
        for count in PHOTOS:
            money = f", {_dollars(count * of_one * price)}" if price else ""
            cells.append(f"{show(count * of_one)}{money}")
        rows.append([what, *cells])

    stored = prepare["bytes_a_photo"] / 1e9
    row("JPEGs of 500×375, and a month of them in a bucket", stored, _bytes, PRICES["GB-month"])
    row(f"prepared store of {SIZE} pixels", SIZE**2 * 3 / 1e9, _bytes)
    hours = 1 / prepare["photos_per_second"] / SECONDS
    row("`prepare` on a core", hours, _time, PRICES["core-hour"])
    row("its memory for names and hashes", memory / 1e9, _bytes)
    row("an epoch on a core", 1 / core / SECONDS, _time)
    row("an epoch on an H100", 1 / gpu / SECONDS, _time)
    row(f"{EPOCHS} epochs on a core", EPOCHS / core / SECONDS, _time, PRICES["core-hour"])
    row(f"{EPOCHS} epochs on an H100", EPOCHS / gpu / SECONDS, _time, PRICES["GPU-hour"])
    return rows


def _digits(number: float) -> str:
    """Round to two significant digits: rates are not known better."""
    return f"{float(f'{number:.2g}'):,.10g}"


def _bytes(gigabytes: float) -> str:
    return f"{_digits(gigabytes)} GB"


def _time(hours: float) -> str:
    for unit, length in (("days", 24.0), ("hours", 1.0), ("min", 1 / 60)):
        if hours >= 2 * length:
            return f"{_digits(hours / length)} {unit}"
    return f"{_digits(hours * SECONDS)} s"


def _dollars(amount: float) -> str:
    return f"${_digits(amount)}" if amount >= 0.01 else "below $0.01"  # noqa: PLR2004


def main() -> None:
    """Print the table."""
    header, *rows = table(load_rates())
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
