"""Run one comparison at several sizes, on the CPU and, if there is one, on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from side_by_side import Row


class Compare(Protocol):
    """A function that compares all contenders at one size on one device."""

    def __call__(self, size: int, *, device: str, quick: bool) -> list[Row]:
        """Return the rows of one size, in pixels, on device "cpu" or "cuda"."""


def on_each_device(
    compare: Compare, sizes: Iterable[int], *, work: str, against: str, bound: float, quick: bool
) -> list[Row]:
    """Measure all sizes; without a GPU, add rows that say that the GPU was not measured.

    Args:
        compare: measures one size on one device.
        sizes: pixels.
        work: name of the rows, to which size and device are added.
        against: contender that the target of the GPU's rows is about.
        bound: target of the GPU's rows.
        quick: True for fewer repeats.
    """
    import torch

    sizes = list(sizes)
    found = [row for size in sizes for row in compare(size, device="cpu", quick=quick)]
    if torch.cuda.is_available():
        return found + [row for size in sizes for row in compare(size, device="cuda", quick=quick)]
    return found + [
        Row(
            named(work, size, "cuda"),
            *("images/s", {}, against, bound),
            at_least=True,
            limit="no GPU at hand",
        )
        for size in sizes
    ]


def named(work: str, size: int, device: str) -> str:
    """Return the name of a row."""
    return f"{work} at {size} pixels{' on the GPU' if device == 'cuda' else ''}"
