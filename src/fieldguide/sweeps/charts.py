"""The report's interactive charts, as Plotly figures.

Texts that Plotly sets as its own small HTML are escaped here; the others it draws as they are.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fieldguide.figures.canvas import RIGHT, TRAIN, VAL, short
from fieldguide.pages.page import style
from fieldguide.sweeps.findings import Curve, Findings, created
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import Parameter, show_value

# Okabe and Ito's, apart for the colour-blind: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKS = {"complete": (VAL, "circle"), "incomplete": (VAL, "circle-open"), "pruned": (TRAIN, "x")}
SCALE = "Viridis"
_COLUMNS = 3  # of box plots
_ROW, _HEADROOM = 280, 60  # pixels
_POINTS = 200  # configurations up to which box plots show each


def history_chart(found: Findings) -> go.Figure:
    """Score by the time it was known, with the best so far."""
    figure = _figure(height=430)
    for state, (colour, symbol) in MARKS.items():
        some = [one for one in found.ranked if found.state(one) == state]
        if some:
            spread = [one.spread or 0 for one in some]
            figure.add_scatter(
                x=[created(one) for one in some],
                y=[one.mean for one in some],
                error_y={"array": spread, "thickness": 1, "width": 2} if any(spread) else None,
                mode="markers",
                name=_legend(found, state),
                marker={"color": colour, "symbol": symbol, "size": 8},
                hovertext=[_hover(found, one) for one in some],
                hoverinfo="text",
            )
    times, bests = zip(*found.running_best(), strict=True)
    figure.add_scatter(
        x=times,
        y=bests,
        mode="lines",
        name="best so far" if found.seeds == 1 else "best bound so far",
        line={"color": RIGHT, "shape": "hv", "width": 2},
        hoverinfo="skip",
    )
    figure.update_xaxes(title="created (UTC)")
    if times[0] == times[-1]:
        minute = timedelta(minutes=1)
        figure.update_xaxes(range=[times[0] - minute, times[0] + minute])
    figure.update_yaxes(title=found.metric, **_scores_range(found))
    return figure


def parallel_chart(found: Findings) -> go.Figure:
    """Every configuration as a line through its values, coloured by its score."""
    scores = [one.mean for one in found.ranked]
    low, high = colour_limits(found)
    figure = _figure(height=520)
    figure.add_parcoords(
        dimensions=[*map(_dimension, found.parameters), _score_dimension(found, scores)],
        labelangle=-20,
        line={
            "color": scores,
            "colorscale": SCALE,
            "reversescale": found.goal == "minimize",  # the better, the brighter
            "cmin": low,
            "cmax": high,
            "showscale": True,
            "colorbar": {"thickness": 12, **_score_axis(found)},
        },
        unselected={"line": {"color": "#dddddd", "opacity": 0.25}},
    )
    figure.update_layout(margin={"t": 95, "l": 90, "r": 60, "b": 30})
    return figure


def marginal_chart(found: Findings) -> go.Figure:
    """Box plots of the score by the values of each parameter, the most important first."""
    parameters = [row.parameter for row in found.influences.rows]
    rows = -(-len(parameters) // _COLUMNS)
    height = rows * _ROW + _HEADROOM
    figure = make_subplots(
        rows=rows,
        cols=_COLUMNS,
        shared_yaxes="all",
        subplot_titles=[html.escape(parameter.label) for parameter in parameters],
        vertical_spacing=min(90 / height, 0.9 / max(rows - 1, 1)),
        horizontal_spacing=0.05,
    )
    style(figure, height=height)
    few = len(found.ranked) <= _POINTS
    tell = partial(_hover, found) if few else found.label
    for k, parameter in enumerate(parameters):
        place = {"row": k // _COLUMNS + 1, "col": k % _COLUMNS + 1}
        groups = parameter.groups()
        texts = distinct([short(text) for text, _ in groups])
        for text, (_, members) in zip(texts, groups, strict=True):
            figure.add_box(
                y=[found.ranked[member].mean for member in members],
                name=html.escape(text).replace(" – ", " –<br>"),  # a fifth's two ends
                boxpoints="all" if few else "outliers",
                pointpos=0,
                jitter=0.4,
                marker={"color": VAL, "size": 4, "opacity": 0.5},
                line={"width": 1.5},
                # Of many, the values would be half of the page, once for each parameter.
                hovertext=[tell(found.ranked[member]) for member in members],
                **place,
            )
        figure.update_xaxes(type="category", **place)
    figure.update_yaxes(**_scores_range(found))
    figure.update_layout(showlegend=False)
    return figure


def curves_chart(found: Findings) -> go.Figure:
    """Accuracy and loss by epoch of the best configurations."""
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("accuracy", "loss"), horizontal_spacing=0.08
    )
    style(figure, height=400)
    for curve in found.curves:
        for name, values in curve.values.items():
            split, kind = name.split("/")
            figure.add_scatter(
                x=list(range(1, len(values) + 1)),
                y=values,
                mode="lines+markers" if len(values) == 1 else "lines",
                name=html.escape(curve_label(found, curve)),
                legendgroup=str(curve.place),
                showlegend=first_of_place(found.curves, curve) and name == _legend_curve(curve),
                line={
                    "color": COLOURS[curve.place - 1],
                    "width": 2 if split == "val" else 1,
                    "dash": "solid" if split == "val" else "dot",
                },
                hovertemplate=f"{html.escape(curve.trial.name)}<br>{name} %{{y:.4f}}, epoch %{{x}}"
                "<extra></extra>",
                row=1,
                col=1 if kind == "acc" else 2,
            )
    _legend_below(figure)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    return figure


def cost_chart(found: Findings) -> go.Figure:
    """Trials and minutes, finished and pruned."""
    cost = found.cost
    figure = make_subplots(rows=1, cols=2, subplot_titles=("trials", "minutes of training"))
    style(figure, height=200)
    parts = (
        ("trained to the end", VAL, cost.finished, round(cost.finished_minutes, 1)),
        ("pruned", TRAIN, cost.pruned, round(cost.pruned_minutes, 1)),
    )
    for name, colour, *amounts in parts:
        for column, amount in enumerate(amounts, start=1):
            figure.add_bar(
                x=[amount],
                y=[""],
                orientation="h",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={"color": colour},
                text=[f"{amount:,}" if amount else ""],
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{name}: %{{x:,}}<extra></extra>",
                row=1,
                col=column,
            )
    figure.update_layout(barmode="stack")
    _legend_below(figure)
    return figure


def colour_limits(found: Findings) -> tuple[float, float]:
    """Scores of the dullest and brightest colour: one failed training must not take all colours."""
    scores = np.array([one.mean for one in found.ranked])
    low, high = np.quantile(scores, [0.1, 1.0] if found.goal == "maximize" else [0.0, 0.9])
    return (float(low), float(high)) if low < high else _around(scores)


def curve_label(found: Findings, curve: Curve) -> str:
    """Place and configuration, for a legend."""
    return f"{curve.place}: {short(found.label(found.ranked[curve.place - 1]))}"


def distinct(texts: list[str]) -> list[str]:
    """Number texts that have become equal, which Plotly would take for one."""
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text} [{k}]" for k, text in enumerate(texts, start=1)]


def first_of_place(curves: Sequence[Curve], curve: Curve) -> bool:
    """Whether it is its configuration's first, which stands for all in the legend."""
    return next(one for one in curves if one.place == curve.place) is curve


def _around(
    scores: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[float, float]:
    """Limits of an axis, never equal."""
    low, high = float(min(scores)), float(max(scores))
    return (low, high) if low < high else (low - 0.01, high + 0.01)


def _dimension(parameter: Parameter) -> dict[str, object]:
    """An axis of the parallel coordinates."""
    places, ticks = parameter.positions(), parameter.ticks()
    axis: dict[str, object] = {"label": html.escape(short(parameter.label)), "values": places}
    if ticks:
        axis["tickvals"] = [place for place, _ in ticks]
        axis["ticktext"] = distinct([short(text) for _, text in ticks])
    if min(places) == max(places):
        axis["range"] = (places[0] - 1, places[0] + 1)
    return axis


def _score_dimension(found: Findings, scores: list[float]) -> dict[str, object]:
    return {
        "label": found.metric,
        "values": scores,
        "range": _around(scores),
        **_score_axis(found),
    }


def _legend(found: Findings, state: str) -> str:
    if found.seeds == 1:
        return {"complete": "trained to the end"}.get(state, state)
    return {
        "complete": f"mean of {found.seeds} seeds ± standard deviation",
        "incomplete": "lacks a seed",
    }.get(state, state)


def _hover(found: Findings, one: Configuration) -> str:
    """Name, score and values of a configuration, a line each."""
    spread = "" if one.spread is None else f" ± {found.show(one.spread)}"
    lines = [f"{found.label(one)}: {found.show(one.mean)}{spread}"]
    lines += [f"{key.rsplit('.', 1)[-1]} {show_value(value)}" for key, value in one.values.items()]
    return "<br>".join(map(html.escape, lines))


def _legend_curve(curve: Curve) -> str:
    """Which of its curves stands for all in the legend."""
    return "val/acc" if "val/acc" in curve.values else next(iter(curve.values))


def _score_axis(found: Findings) -> dict[str, object]:
    return {"tickformat": ".3~p" if found.metric.endswith("acc") else ".3g"}


def _scores_range(found: Findings) -> dict[str, object]:
    """Equal scores would get an axis from -50 % to 150 %."""
    scores = [score for one in found.ranked for score in one.scores]
    if min(scores) < max(scores):
        return _score_axis(found)
    return {**_score_axis(found), "range": _around(scores)}


def _figure(*, height: int) -> go.Figure:
    return style(go.Figure(), height=height)


def _legend_below(figure: go.Figure) -> None:
    """Subplots have titles where the legend would be."""
    figure.update_layout(legend={"y": -0.18, "yanchor": "top"}, margin={"b": 80})
