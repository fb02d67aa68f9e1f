"""What all figures share: colours, grids of small pictures, and saving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RIGHT, WRONG = "#1a7f37", "#c62828"  # dark enough to read as text, apart for the colour-blind
TRAIN, VAL = "#8a8a8a", "#1f5fa8"
DPI = 110
_MAX_HEIGHT = 30_000  # pixels; Matplotlib stops at 2**16


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same picture gives the same bytes."""
    dpi = min(DPI, _MAX_HEIGHT / figure.get_figheight())
    figure.savefig(path, dpi=dpi, facecolor="white")


def show_photo(axes: Axes, pixels: npt.NDArray[np.uint8], frame: str | None = None) -> None:
    """Show an (H, W, 3) photo without ticks, with a coloured frame if asked for."""
    # Smoothed: at 32 pixels a reader recognises the thing, not the squares.
    axes.imshow(pixels, interpolation="bicubic")
    bare(axes)
    if frame is not None:
        for spine in axes.spines.values():
            spine.set(visible=True, color=frame, linewidth=3)


def bare(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def tiles(
    pictures: Sequence[npt.NDArray[np.floating]],
    *,
    title: str,
    subtitle: str,
    limits: tuple[float, float],
    colours: str | None = None,
    side: int = 8,
    interpolation: str = "nearest",
) -> Figure:
    """Draw up to side × side small pictures on a grid.

    Args:
        pictures: each (h, w), or (h, w, 3) in [0, 1].
        title: what one sees.
        subtitle: how to read it.
        limits: values of the darkest and the brightest colour.
        colours: a Matplotlib colour map, for (h, w).
        side: rows and columns.
        interpolation: Matplotlib's name.
    """
    figure = Figure(figsize=(8, 8.9))
    figure.suptitle(title, fontsize=14, y=0.985)
    figure.text(0.5, 0.935, subtitle, ha="center", va="center", fontsize=9.5, color="#444444")
    grid = figure.subplots(
        side,
        side,
        gridspec_kw={
            "left": 0.02,
            "right": 0.98,
            "bottom": 0.02,
            "top": 0.905,
            "wspace": 0.08,
            "hspace": 0.08,
        },
    )
    for axes in grid.flat:
        bare(axes)
    for axes, picture in zip(grid.flat, pictures, strict=False):
        axes.imshow(
            picture, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation=interpolation
        )
    return figure
