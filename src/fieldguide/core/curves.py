"""The training curves that `train` writes to plots/curves.csv."""

from __future__ import annotations


def parse_curves(text: str) -> dict[str, list[float]]:
    """Return the values by epoch: train_loss, train_acc, val_loss, val_acc and learning_rate.

    After a training on the validation photos too, val_loss and val_acc are missing.

    Raises:
        ValueError: there is no epoch, or it is another table.
    """
    header, *lines = (line.split(",") for line in text.splitlines())
    if "epoch" not in header:
        raise ValueError(f"found columns {header}")
    columns = zip(*(map(float, line) for line in lines), strict=True)
    curves = {name: list(values) for name, values in zip(header, columns, strict=True)}
    del curves["epoch"]
    return curves


def kept_epoch(curves: dict[str, list[float]]) -> int:
    """Return the epoch whose weights were kept, counted from 1.

    It is the first of those with the best val_acc; without validation, the last.
    """
    if "val_acc" not in curves:
        return len(curves["train_acc"])
    return curves["val_acc"].index(max(curves["val_acc"])) + 1
