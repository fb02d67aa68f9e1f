"""What all figures share: colours, grids of small pictures, and saving."""

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

RIGHT, WRONG = "#1a7f37", "#c62828"  # dark enough to read as text, apart for the colour-blind
TRAIN, VAL = "#8a8a8a", "#1f5fa8"
GREY = "#444444"
DPI = 110
HEADING, LINE, EDGE = 0.8, 0.17, 0.15  # inches
SIDE = 8  # tiles in a row
PAIRS = 2  # photos with their explanation, in a row
Grid = npt.NDArray[Any]  # of Axes, (rows, columns)
_NAME = 28  # characters
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


def short(name: str) -> str:
    """A class name that fits above a photo or beside an axis.

    Characters that the font has not are written as their code point, U+8C93, because boxes look
    all the same.
    """
    name = "".join(c if ord(c) in _glyphs() else f"U+{ord(c):04X} " for c in name).strip()
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


@functools.cache
def _glyphs() -> frozenset[int]:
    """Code points of the font that Matplotlib brings along and draws with."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write the title and, below it, how to read the figure."""
    height = figure.get_figheight()
    figure.suptitle(title, fontsize=14, y=1 - 0.14 / height, va="top")
    figure.text(
        0.5, 1 - 0.56 / height, subtitle, ha="center", va="center", fontsize=9.5, color=GREY
    )


def grid_of(
    figure: Figure, rows: int, columns: int, *, hspace: float, wspace: float, lines: int = 0
) -> Grid:
    """Lay out empty axes below the heading, with room for `lines` of title above each."""
    width, height = figure.get_size_inches()
    grid: Grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": EDGE / width,
            "right": 1 - EDGE / width,
            "bottom": EDGE / height,
            "top": 1 - (HEADING + LINE * lines) / height,
            "hspace": hspace,
            "wspace": wspace,
        },
    )
    for axes in grid.flat:
        bare(axes)
    return grid


def pairs(count: int, *, title: str, subtitle: str) -> tuple[Figure, Grid]:
    """Lay out `count` photos, two in a row, each with room for what explains it on its right.

    Returns:
        The figure, and its axes: (count or more, 2).
    """
    rows = max(1, -(-count // PAIRS))
    figure = Figure(figsize=(4.4 * PAIRS + 0.3, 2.5 * rows + HEADING + 0.5))
    heading(figure, title, subtitle)
    grid = grid_of(figure, rows, 2 * PAIRS, hspace=0.16, wspace=0.05, lines=1)
    return figure, grid.reshape(-1, 2)


def tiles(
    pictures: Sequence[npt.NDArray[np.floating]],
    *,
    title: str,
    subtitle: str,
    limits: tuple[float, float],
    colours: str | None = None,
) -> Figure:
    """Draw up to 64 small pictures, eight a row.

    Args:
        pictures: each (h, w), or (h, w, 3) in [0, 1].
        title: what one sees.
        subtitle: how to read it.
        limits: values of the darkest and the brightest colour.
        colours: a Matplotlib colour map, for (h, w).
    """
    rows = -(-len(pictures) // SIDE)
    figure = Figure(figsize=(8, rows * 7.7 / SIDE + HEADING + EDGE))
    heading(figure, title, subtitle)
    grid = grid_of(figure, rows, SIDE, hspace=0.08, wspace=0.08)
    for axes, picture in zip(grid.flat, pictures, strict=False):
        axes.imshow(picture, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    return figure
