"""What all Plotly charts of pages share: fonts, colours, lines by epoch and short names."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from fieldguide.core.output import cut
from fieldguide.figures.canvas import GREY

# Okabe and Ito's colours, which colour-blind readers can tell apart:
# https://jfly.uni-koeln.de/color/
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def new_figure(height: int) -> go.Figure:
    """Return an empty figure.

    Args:
        height: in pixels; the width follows the page.
    """
    return go.Figure().update_layout(
        template="plotly_white",
        height=height,
        margin={"t": 40, "l": 60, "r": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "color": GREY, "size": 12},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )


def add_curve(figure: go.Figure, values: Sequence[float | None], **line: Any) -> None:
    """Draw values by epoch; a single one as a point."""
    figure.add_scatter(
        x=list(range(1, len(values) + 1)),
        y=values,
        mode="lines+markers" if len(values) == 1 else "lines",
        **line,
    )


def label(name: str) -> str:
    """Shorten a name and escape it: Plotly reads most texts as HTML."""
    return escape(cut(name))
