"""The interactive charts of a run's report.

Plotly reads texts as HTML of its own: they are escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from fieldguide.evaluation.calibration import Bin
from fieldguide.evaluation.intervals import Interval, wilson
from fieldguide.evaluation.trust import Point, Trust
from fieldguide.figures.canvas import TRAIN, VAL
from fieldguide.pages.plotly_style import COLOURS, add_curve, label, new_figure
from fieldguide.results.classes import Confusion
from fieldguide.results.results import Results, known

CELLS = 100  # classes up to which the confusion matrix is drawn
_NUMBERED, _NAMED = 20, 40  # classes up to which its cells have numbers, and its axes names


def curve_chart(run: Results, other: Results | None, kind: str) -> go.Figure:
    """Draw accuracy or loss by epoch; of the other run only the validation's.

    Args:
        run: its curves must not be missing.
        other: the run that it is compared with.
        kind: `acc` or `loss`.
    """
    curves = known(run.curves, {})
    lines = [
        (curves.get(f"train_{kind}"), "train", TRAIN, "dot"),
        (curves.get(f"val_{kind}"), "val", VAL, "solid"),
    ]
    if other:
        values = known(other.curves, {}).get(f"val_{kind}")
        lines.append((values, f"val, {label(other.label)}", COLOURS[1], "dash"))
    figure = new_figure(height=360)
    for values, name, colour, dash in lines:
        if values:
            add_curve(
                figure,
                values,
                name=name,
                line={"color": colour, "dash": dash, "width": 2},
                hovertemplate=f"{name} %{{y:.4f}}, epoch %{{x}}<extra></extra>",
            )
    if f"val_{kind}" in curves:
        figure.add_vline(
            run.kept_epoch,
            line={"color": VAL, "width": 1, "dash": "dot"},
            annotation={"text": "kept", "font": {"size": 11}, "yanchor": "bottom"},
        )
    figure.update_xaxes(title="epoch")
    return figure.update_yaxes(
        title={"acc": "accuracy", "loss": "loss"}[kind],
        tickformat=".0%" if kind == "acc" else None,
    )


def confusion_chart(confusion: Confusion) -> go.Figure:
    """Draw the share of each true class that was predicted as each class."""
    names = [label(name) for name in confusion.names]
    size = len(names)
    figure = new_figure(height=min(max(34 * size + 150, 320), 1000))
    figure.add_heatmap(
        z=np.round(confusion.shares, 4).tolist(),
        customdata=confusion.counts.tolist(),
        zmin=0,
        zmax=1,
        colorscale=[[0, "#ffffff"], [1, "#0b3d78"]],
        text=[[f"{n:,}" if n else "" for n in row] for row in confusion.counts.tolist()],
        texttemplate="%{text}" if size <= _NUMBERED else None,
        colorbar={"tickformat": ".0%", "thickness": 12},
        hovertext=[[f"{actual}, predicted {guess}" for guess in names] for actual in names],
        hovertemplate="%{hovertext}<br>%{customdata} photos, %{z:.1%} of the class<extra></extra>",
        xgap=1,
        ygap=1,
    )
    ticks = {
        "tickvals": list(range(size)),
        "ticktext": names,
        "showticklabels": size <= _NAMED,  # more would overlap
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(title="predicted class", tickangle=-45, automargin=True, **ticks)
    return figure.update_yaxes(title="true class", autorange="reversed", automargin=True, **ticks)


def calibration_chart(bins: Sequence[Bin]) -> go.Figure:
    """Draw accuracy by confidence, each point with its photos and its 95 % interval (Wilson)."""
    figure = new_figure(height=440)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfectly calibrated",
        line={"color": "#aaaaaa", "dash": "dash"},
        hoverinfo="skip",
    )
    most = max(one.photos for one in bins)
    hits = [(round(one.accuracy * one.photos), one.photos) for one in bins]
    intervals = [wilson(*one) or Interval(0, 1) for one in hits]
    figure.add_scatter(
        x=[one.confidence for one in bins],
        y=[one.accuracy for one in bins],
        error_y={
            "symmetric": False,
            "array": [one.high - bin_.accuracy for one, bin_ in zip(intervals, bins, strict=True)],
            "arrayminus": [
                bin_.accuracy - one.low for one, bin_ in zip(intervals, bins, strict=True)
            ],
            "thickness": 1.2,
            "width": 3,
        },
        mode="lines+markers",
        name="this run; the larger a point, the more photos",
        line={"color": VAL, "width": 1.5},
        marker={"color": VAL, "size": [6 + 14 * (one.photos / most) ** 0.5 for one in bins]},
        customdata=[one.photos for one in bins],
        hovertemplate="%{customdata:,} photos<br>confidence %{x:.1%}, accuracy %{y:.1%}"
        "<extra></extra>",
    )
    figure.update_xaxes(title="confidence", tickformat=".0%", range=[0, 1.03])
    return figure.update_yaxes(
        title="accuracy (above the line: underconfident)", tickformat=".0%", range=[-0.03, 1.03]
    )


def risk_chart(points: Sequence[Point], trust: Trust | None) -> go.Figure:
    """Draw the share of wrong answers by the share of photos that are accepted.

    Args:
        points: of the curve, at least one.
        trust: marks the photos that are not unsure, if there are any.
    """
    figure = new_figure(height=360)
    figure.add_scatter(
        x=[one.coverage for one in points],
        y=[one.risk for one in points],
        mode="lines",
        name="this run",
        line={"color": VAL, "width": 2},
        customdata=[one.confidence for one in points],
        hovertemplate="the %{x:.0%} most confident photos: %{y:.1%} wrong<br>confidence "
        "%{customdata:.1%} or more<extra></extra>",
    )
    if trust is not None and trust.accepted:
        figure.add_vline(
            trust.coverage,
            line={"color": VAL, "width": 1, "dash": "dot"},
            annotation={"text": "not unsure", "font": {"size": 11}, "yanchor": "bottom"},
        )
    figure.update_xaxes(title="accepted photos", tickformat=".0%", range=[0, 1.03])
    return figure.update_yaxes(title="wrong among them", tickformat=".0%", rangemode="tozero")
