"""The training curves that `train` writes to plots/curves.csv."""

from __future__ import annotations


def parse_curves(text: str) -> dict[str, list[float]]:
    """Return the values by epoch: loss and scores of train and val, learning_rate, and kept.

    `kept` is 1 for the epoch whose weights were kept, and 0 for the others. After a training on
    the validation photos too, the columns that begin with val_ are missing.

    Raises:
        ValueError: there is no epoch, or it is another table.
    """
    header, *lines = (line.split(",") for line in text.splitlines())
    if not {"epoch", "kept"} <= set(header):
        raise ValueError(f"found columns {header}")
    columns = zip(*(map(float, line) for line in lines), strict=True)
    curves = {name: list(values) for name, values in zip(header, columns, strict=True)}
    del curves["epoch"]
    if curves["kept"].count(1) != 1:
        raise ValueError(f"found kept {curves['kept']}; allowed: 1 for one epoch")
    return curves


def kept_epoch(curves: dict[str, list[float]]) -> int:
    """Return the epoch whose weights were kept, counted from 1."""
    return curves["kept"].index(1) + 1
