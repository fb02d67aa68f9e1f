"""Colours, layout and saving, shared by all figures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from fieldguide.core.output import cut

RIGHT, WRONG = "#1a7f37", "#c62828"  # readable as text; distinct for the colour-blind
TRAIN, VAL = "#8a8a8a", "#1f5fa8"  # colours of the splits in all charts
GREY = "#444444"
DPI = 110
HEADING, LINE, EDGE = 0.8, 0.17, 0.15  # inches
SIDE = 8  # tiles in a row
Grid = npt.NDArray[Any]  # of Axes, (rows, columns)
_MAX_HEIGHT = 30_000  # pixels; Matplotlib stops at 2**16


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file; the same figure always gives the same bytes."""
    dpi = min(DPI, _MAX_HEIGHT / figure.get_figheight())
    figure.savefig(path, dpi=dpi, facecolor="white")


def show_photo(axes: Axes, pixels: npt.NDArray[np.uint8], frame: str | None = None) -> None:
    """Show a photo (H, W, 3) without ticks; with a frame if `frame` names its colour."""
    # Smoothed, because squares of 32 × 32 pixels are hard to recognise.
    axes.imshow(pixels, interpolation="bicubic")
    bare(axes)
    if frame is not None:
        for spine in axes.spines.values():
            spine.set(visible=True, color=frame, linewidth=3)


def show_heat(axes: Axes, pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating]) -> None:
    """Show a dimmed grey copy of a photo (H, W, 3) below its heat map (h, w), in [0, 1]."""
    height, width = pixels.shape[:2]
    grey = (pixels.mean(axis=2) * 0.45).astype(np.uint8)
    show_photo(axes, np.stack([grey] * 3, axis=2))
    axes.imshow(
        heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=heat,
        interpolation="bicubic",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )


def bare(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def short(name: str, longest: int = 28) -> str:
    """Shorten a class name that Matplotlib draws to `longest` characters.

    A character that the font lacks becomes its code point, such as U+8C93, because Matplotlib would
    draw the same box for all of them.
    """
    name = "".join(c if ord(c) in _glyphs() else f"U+{ord(c):04X} " for c in name).strip()
    return cut(name, longest)


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points in the font that Matplotlib draws with."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write the title and, below it, a subtitle that says how to read the figure."""
    height = figure.get_figheight()
    figure.suptitle(title, fontsize=14, y=1 - 0.14 / height, va="top")
    figure.text(
        0.5, 1 - 0.56 / height, subtitle, ha="center", va="center", fontsize=9.5, color=GREY
    )


def photo_grid(
    rows: int, columns: int, *, title: str, subtitle: str, lines: int
) -> tuple[Figure, Grid]:
    """Lay out a figure of photos, each below `lines` lines of text.

    Returns:
        The figure and its empty axes, (rows, columns).
    """
    width = max(2.2 * columns, 5) + 2 * EDGE
    height = (2.33 + LINE * lines) * rows + HEADING + 0.5
    figure = Figure(figsize=(width, height))
    heading(figure, title, subtitle)
    left, bottom, top = EDGE / width, EDGE / height, 1 - (HEADING + LINE * lines) / height
    figure.subplots_adjust(left, bottom, 1 - left, top, wspace=0.05, hspace=0.07 + 0.09 * lines)
    grid: Grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        bare(axes)
    return figure, grid


def pairs(count: int, *, title: str, subtitle: str) -> tuple[Figure, Grid]:
    """Lay out `count` photos, two in a row, each beside empty axes for its explanation.

    Returns:
        The figure and its axes, (count or more, 2).
    """
    rows = max(1, -(-count // 2))
    figure, grid = photo_grid(rows, 4, title=title, subtitle=subtitle, lines=1)
    return figure, grid.reshape(-1, 2)


def tiles(
    pictures: Sequence[npt.NDArray[np.floating]],
    *,
    title: str,
    subtitle: str,
    colours: str | None = None,
    lowest: float = 0,
) -> Figure:
    """Draw small pictures, eight in a row.

    Args:
        pictures: each (h, w, 3) in [0, 1], or (h, w) from `lowest` to 1.
        title: what the figure shows.
        subtitle: how to read it.
        colours: a Matplotlib colour map for (h, w).
        lowest: value of the first colour; the last colour stands for 1.
    """
    rows, gap = -(-len(pictures) // SIDE), 0.07  # gap as a fraction of a tile with its gap
    width, height = 8, rows * (8 - 2 * EDGE) / SIDE + HEADING + EDGE
    figure = Figure(figsize=(width, height))
    heading(figure, title, subtitle)
    box = (EDGE / width, EDGE / height, 1 - 2 * EDGE / width, 1 - (HEADING + EDGE) / height)
    axes = figure.add_axes(box)  # one for all tiles, because axes take long to draw
    bare(axes)
    for k, picture in enumerate(pictures):
        y, x = divmod(k, SIDE)
        axes.imshow(
            picture,
            cmap=colours,
            vmin=lowest,
            vmax=1,
            interpolation="nearest",
            extent=(x, x + 1 - gap, y + 1 - gap, y),
        )
    axes.set(xlim=(0, SIDE - gap), ylim=(rows - gap, 0))
    return figure
