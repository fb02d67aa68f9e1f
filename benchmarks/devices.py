"""The same comparison at several sizes, on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from side_by_side import Row


class Compare(Protocol):
    """Measures one size on one device."""

    def __call__(self, size: int, *, device: str, quick: bool) -> list[Row]:
        """Return its rows; size in pixels, device "cpu" or "cuda"."""


def on_each_device(
    compare: Compare, sizes: Iterable[int], *, work: str, against: str, bound: float, quick: bool
) -> list[Row]:
    """Measure all sizes; without a GPU its rows say that they are not measured.

    Args:
        compare: measures.
        sizes: pixels.
        work: what the rows are called.
        against: of the rows on a GPU.
        bound: likewise.
        quick: fewer repeats.
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
    """Name of a row."""
    return f"{work} at {size} pixels{' on the GPU' if device == 'cuda' else ''}"
