"""The report's interactive charts. Plotly sets texts as its own small HTML: they are escaped."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go

from fieldguide.figures.canvas import TRAIN, VAL
from fieldguide.pages.page import style
from fieldguide.report.calibration import Bin
from fieldguide.results.classes import ClassScores, Confusion, Interval
from fieldguide.results.run import SPLITS, Run

OTHER = "#d55e00"  # the run it is compared with; Okabe and Ito's, https://jfly.uni-koeln.de/color/
CLASSES = 40  # that a chart shows
CELLS = 100  # classes up to which the confusion matrix is drawn
_NUMBERED = 20  # classes up to which its cells have numbers
_ROW, _MARGIN = 24, 110  # pixels
_SPLIT_COLOURS = {"train": "#1f5fa8", "val": "#7fb0e0", "test": "#e69f00"}
_NAME = 28  # characters


def curve_chart(run: Run, other: Run | None, kind: str) -> go.Figure:
    """Values by epoch of `acc` or `loss`; of the other run only the validation's."""
    figure = style(go.Figure(), height=360)
    lines = [
        (run.curves.get(f"train/{kind}"), "train", TRAIN, "dot"),
        (run.curves.get(f"val/{kind}"), "val", VAL, "solid"),
    ]
    if other:
        values = other.curves.get(f"val/{kind}")
        lines.append((values, f"val, {_label(other.label)}", OTHER, "dash"))
    for values, name, colour, dash in lines:
        if values:
            figure.add_scatter(
                x=list(range(1, len(values) + 1)),
                y=values,
                name=name,
                mode="lines+markers" if len(values) == 1 else "lines",
                line={"color": colour, "dash": dash, "width": 2},
                hovertemplate=f"{name} %{{y:.4f}}, epoch %{{x}}<extra></extra>",
            )
    kept = run.scores.get("best.epoch")
    if isinstance(kept, int) and run.curves.get(f"val/{kind}"):
        figure.add_vline(
            kept,
            line={"color": VAL, "width": 1, "dash": "dot"},
            annotation={"text": "kept", "font": {"size": 11}, "yanchor": "bottom"},
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(
        title={"acc": "accuracy", "loss": "loss"}[kind],
        tickformat=".0%" if kind == "acc" else None,
    )
    return figure


def photos_chart(run: Run) -> go.Figure:
    """Photos of the classes by split, the smallest classes if there are too many."""
    names = sorted(run.photos, key=lambda name: (sum(run.photos[name].values()), name))[:CLASSES]
    if len(run.photos) <= CLASSES:
        names = [name for name in run.photos if name in names]
    figure = style(go.Figure(), height=_ROW * len(names) + _MARGIN)
    for split in SPLITS:
        figure.add_bar(
            x=[run.photos[name][split] for name in names],
            y=list(range(len(names))),
            orientation="h",
            name=split,
            marker={"color": _SPLIT_COLOURS[split]},
            hovertemplate=f"%{{x:,}} photos of {split}<extra></extra>",
        )
    _name_rows(figure, names)
    figure.update_xaxes(title="photos")
    return figure.update_layout(barmode="stack", legend_traceorder="normal")


def class_chart(rows: list[ClassScores], other: Run | None) -> go.Figure:
    """Recall with interval and precision, the weakest class on top."""
    figure = style(go.Figure(), height=_ROW * len(rows) + _MARGIN)
    places = np.arange(len(rows))
    figure.add_scatter(
        x=[row.precision for row in rows],
        y=places,
        mode="markers",
        name="precision",
        marker={"color": TRAIN, "symbol": "diamond-open", "size": 8},
        hovertemplate="precision %{x:.1%}<extra></extra>",
    )
    if other:
        before = {row.name: row.recall for row in other.classes}
        figure.add_scatter(
            x=[before.get(row.name) for row in rows],
            y=places,
            mode="markers",
            name=f"recall, {_label(other.label)}",
            marker={"color": OTHER, "symbol": "circle-open", "size": 8, "line": {"width": 2}},
            hovertemplate="recall before %{x:.1%}<extra></extra>",
        )
    figure.add_scatter(
        x=[row.recall for row in rows],
        y=places,
        error_x=_bars([row.recall for row in rows], [row.recall_interval for row in rows]),
        mode="markers",
        name="recall, with its 95 % interval",
        marker={"color": VAL, "size": 8},
        hovertemplate="recall %{x:.1%}<extra></extra>",
    )
    _name_rows(figure, [row.name for row in rows])
    return figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])


def confusion_chart(confusion: Confusion) -> go.Figure:
    """Share of each true class that was called each class."""
    names = [_label(name) for name in confusion.names]
    size = len(names)
    few = size <= _NUMBERED
    figure = style(go.Figure(), height=min(max(34 * size + 150, 320), 1000))
    figure.add_heatmap(
        z=np.round(confusion.shares, 4).tolist(),
        customdata=confusion.counts.tolist(),
        zmin=0,
        zmax=1,
        colorscale=[[0, "#ffffff"], [1, "#0b3d78"]],
        text=[[f"{n:,}" if n else "" for n in row] for row in confusion.counts.tolist()],
        texttemplate="%{text}" if few else None,
        colorbar={
            "title": {"text": "share of<br>true class"},
            "tickformat": ".0%",
            "thickness": 12,
        },
        hovertext=[[f"{actual}, called {called}" for called in names] for actual in names],
        hovertemplate="%{hovertext}<br>%{customdata} photos, %{z:.1%} of the class<extra></extra>",
        xgap=1,
        ygap=1,
    )
    ticks = {
        "tickvals": list(range(size)),
        "ticktext": names,
        "showticklabels": size <= CLASSES,  # more would lie on each other; the pointer tells them
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(title="called", tickangle=-45, automargin=True, **ticks)
    figure.update_yaxes(title="true class", autorange="reversed", automargin=True, **ticks)
    return figure


def calibration_chart(bins: list[Bin]) -> go.Figure:
    """Accuracy by confidence, each point with its photos and interval."""
    figure = style(go.Figure(), height=440)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfectly calibrated",
        line={"color": "#aaaaaa", "dash": "dash"},
        hoverinfo="skip",
    )
    photos = [one.photos for one in bins]
    told = [f"{n:,} photos<br>" if n is not None else "" for n in photos]
    most = max((n for n in photos if n is not None), default=0)
    figure.add_scatter(
        x=[one.confidence for one in bins],
        y=[one.accuracy for one in bins],
        error_y=_bars([one.accuracy for one in bins], [one.interval for one in bins]),
        mode="lines+markers",
        name="this run; the larger a point, the more photos" if most else "this run",
        line={"color": VAL, "width": 1.5},
        marker={"color": VAL, "size": [6 + 14 * ((n or 0) / max(most, 1)) ** 0.5 for n in photos]},
        customdata=told,
        hovertemplate="%{customdata}confidence %{x:.1%}, accuracy %{y:.1%}<extra></extra>",
    )
    figure.update_xaxes(title="confidence", tickformat=".0%", range=[0, 1.03])
    return figure.update_yaxes(
        title="accuracy (above the line: too modest)", tickformat=".0%", range=[-0.03, 1.03]
    )


def _bars(values: list[float], intervals: list[Interval | None]) -> dict[str, object] | None:
    """Plotly's error bars of intervals; None where there is none."""
    if not any(intervals):
        return None
    ends = [
        (one.high - value, value - one.low) if one else (0.0, 0.0)
        for value, one in zip(values, intervals, strict=True)
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(high, 0.0) for high, _ in ends],
        "arrayminus": [max(low, 0.0) for _, low in ends],
        "thickness": 1.2,
        "width": 3,
    }


def _name_rows(figure: go.Figure, names: list[str]) -> None:
    """Rows are numbers with names beside them: two names may be cut to the same."""
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[_label(name) for name in names],
        range=[len(names) - 0.4, -0.6],
        automargin=True,
        showgrid=True,
        zeroline=False,
    )


def _label(name: str) -> str:
    return escape(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…")
