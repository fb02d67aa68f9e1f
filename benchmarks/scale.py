"""Bytes, hours and money of 12 thousand, a million and a billion photos, for docs/scale.md.

    python benchmarks/scale.py

Reckoned from the rates in rates.jsonl, which rates.py measured, and from PRICES, which are round
numbers to be replaced by one's own. Prints the table in Markdown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RATES = Path(__file__).with_name("rates.jsonl")
PHOTOS = (12_000, 1_000_000, 1_000_000_000)
SIZE = 32  # pixels, params.yaml's
EPOCHS = 24  # likewise
# Dollars: not measured, and other ones elsewhere.
PRICES = {"core-hour": 0.04, "GPU-hour": 3.0, "GB-month": 0.023}
SECONDS = 3600


def load_rates(path: Path = RATES) -> dict[str, dict[str, Any]]:
    """Rates by what they are of."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["what"]: line for line in lines}


def table(rates: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of the table, the header first."""
    prepare = rates[f"prepare, 500×375 to {SIZE} pixels"]
    core = rates[f"train, {SIZE} pixels, one core"]["photos_per_second"]
    gpu = rates[f"train, {SIZE} pixels, H100"]["photos_per_second"]
    memory = rates["prepare, memory"]["bytes_a_photo"]
    rows = [["photos", *(f"{count:,}" for count in PHOTOS)]]

    def row(what: str, unit: str, of_one: float, price: float = 0.0) -> None:
        cells = []
        for count in PHOTOS:
            money = f" (${_round(count * of_one * price)})" if price else ""
            cells.append(f"{_round(count * of_one)} {unit}{money}")
        rows.append([what, *cells])

    stored = prepare["bytes_a_photo"] / 1e9
    row("archives of JPEGs of 500×375, and a month of them", "GB", stored, PRICES["GB-month"])
    row(f"prepared store of {SIZE} pixels", "GB", SIZE**2 * 3 / 1e9)
    hours = 1 / prepare["photos_per_second"] / SECONDS
    row("`prepare`", "core-hours", hours, PRICES["core-hour"])
    row("its memory for names and hashes", "GB", memory / 1e9)
    row("an epoch on a core", "hours", 1 / core / SECONDS)
    row("an epoch on an H100", "hours", 1 / gpu / SECONDS)
    row(f"{EPOCHS} epochs on cores", "core-hours", EPOCHS / core / SECONDS, PRICES["core-hour"])
    row(f"{EPOCHS} epochs on an H100", "GPU-hours", EPOCHS / gpu / SECONDS, PRICES["GPU-hour"])
    return rows


def _round(number: float) -> str:
    """Two digits are what rates are good for."""
    if number == 0:
        return "0"
    return f"{float(f'{number:.2g}'):,.10g}"


def main() -> None:
    """Print the table."""
    header, *rows = table(load_rates())
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
