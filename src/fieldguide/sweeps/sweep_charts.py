"""The interactive charts of a sweep's report.

Plotly reads most texts as HTML of its own: those are escaped here. It draws the values on the axes
of parallel coordinates as they are.
"""

from __future__ import annotations

import html
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fieldguide.core.output import cut
from fieldguide.figures.canvas import RIGHT, VAL
from fieldguide.pages.plotly_style import COLOURS, add_curve, label, new_figure
from fieldguide.sweeps.analysis import Analysis, ended
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import FEW, Parameter, show_value

_PRUNED = "#8a8a8a"
_MARKS = {"complete": (VAL, "circle"), "incomplete": (VAL, "circle-open"), "pruned": (_PRUNED, "x")}
_TOLD = 200  # configurations up to which each point of a box plot tells its values


def history_chart(found: Analysis) -> go.Figure:
    """Draw scores by the time they were known, and the best so far."""
    figure = new_figure(height=430)
    for state, (colour, symbol) in _MARKS.items():
        some = [one for one in found.ranked if found.state(one) == state]
        if some:
            spread = [one.spread or 0 for one in some]
            figure.add_scatter(
                x=[ended(one) for one in some],
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
    figure.update_xaxes(title="end of training (UTC)")
    if times[0] == times[-1]:
        minute = timedelta(minutes=1)
        figure.update_xaxes(range=[times[0] - minute, times[0] + minute])
    scores = [score for one in found.ranked for score in one.scores]
    if min(scores) == max(scores):  # Plotly would show -50 % to 150 %
        figure.update_yaxes(range=_apart(scores[0], scores[0]))
    return figure.update_yaxes(title=found.metric, **_ticks(found))


def parallel_chart(found: Analysis) -> go.Figure:
    """Draw every configuration as a line through its values, coloured by its score."""
    scores = [one.mean for one in found.ranked]
    # One failed training must not take up the whole range of colours.
    ends = [0.1, 1.0] if found.goal == "maximize" else [0.0, 0.9]
    low, high = _apart(*np.quantile(scores, ends).tolist())
    score = {"label": found.metric, "values": scores, "range": _apart(min(scores), max(scores))}
    figure = new_figure(height=520)
    figure.add_parcoords(
        dimensions=[*map(_dimension, found.parameters), {**score, **_ticks(found)}],
        labelangle=-20,
        line={
            "color": scores,
            "colorscale": "Viridis",
            "reversescale": found.goal == "minimize",  # the better, the brighter
            "cmin": low,
            "cmax": high,
            "showscale": True,
            "colorbar": {"thickness": 12, **_ticks(found)},
        },
        unselected={"line": {"color": "#dddddd", "opacity": 0.25}},
    )
    return figure.update_layout(margin={"t": 95, "l": 90, "r": 60, "b": 30})


def marginal_charts(found: Analysis) -> list[tuple[str, go.Figure]]:
    """Draw the score by value for each parameter, the most important first.

    Returns:
        The parameter's label and its chart.
    """
    scores = [one.mean for one in found.ranked]
    margin = 0.06 * (max(scores) - min(scores))
    # The same for all, so that they can be compared.
    limits = _apart(min(scores) - margin, max(scores) + margin)
    # The values of many would be half of the page, once for each parameter.
    tell = partial(_hover, found) if len(scores) <= _TOLD else found.label
    texts = [tell(one) for one in found.ranked]
    marker = {"color": VAL, "size": 4, "opacity": 0.5}
    charts = []
    for parameter in (row.parameter for row in found.influences):
        figure = new_figure(height=260)
        places, ticks = parameter.positions(), parameter.ticks()
        if len(set(places)) <= FEW:
            # Plotly would make a box of each value as wide as the values are apart.
            index = {place: k for k, place in enumerate(sorted(set(places)))}
            places = [index[place] for place in places]
            ticks = [(index[place], text) for place, text in ticks]
            figure.add_box(
                x=places,
                y=scores,
                boxpoints="all",
                pointpos=0,
                jitter=0.4,
                marker=marker,
                line={"width": 1.5},
                hovertext=texts,
            )
        else:
            figure.add_scatter(
                x=places, y=scores, mode="markers", marker=marker, hovertext=texts, hoverinfo="text"
            )
        if ticks:
            figure.update_xaxes(
                tickvals=[place for place, _ in ticks], ticktext=[label(text) for _, text in ticks]
            )
        figure.update_yaxes(range=limits, **_ticks(found))
        figure.update_layout(showlegend=False, margin={"t": 10, "b": 60})
        charts.append((parameter.label, figure))
    return charts


def curve_charts(found: Analysis) -> list[tuple[str, go.Figure]]:
    """Draw accuracy and loss by epoch of the best configurations.

    Returns:
        The name of the values and their chart.
    """
    charts = []
    for name, kind in (("accuracy", "acc"), ("loss", "loss")):
        figure = new_figure(height=400)
        in_legend = set()
        for place, trial, curves in found.curves:
            for split, width, dash in (("val", 2, "solid"), ("train", 1, "dot")):
                if values := curves.get(f"{split}/{kind}"):
                    add_curve(
                        figure,
                        values,
                        name=label(f"{place}: {found.label(found.ranked[place - 1])}"),
                        legendgroup=str(place),
                        showlegend=place not in in_legend,
                        line={"color": COLOURS[place - 1], "width": width, "dash": dash},
                        hovertemplate=f"{html.escape(trial.name)}<br>{split} %{{y:.4f}}, "
                        "epoch %{x}<extra></extra>",
                    )
                    in_legend.add(place)
        figure.update_xaxes(title="epoch")
        figure.update_yaxes(tickformat=".0%" if kind == "acc" else None)
        charts.append((name, figure))
    return charts


def _dimension(parameter: Parameter) -> dict[str, Any]:
    """Return an axis of the parallel coordinates."""
    places, ticks = parameter.positions(), parameter.ticks()
    axis = {"label": label(parameter.label), "values": places}
    if ticks:
        axis["tickvals"] = [place for place, _ in ticks]
        axis["ticktext"] = _distinct([cut(text) for _, text in ticks])
    if min(places) == max(places):
        axis["range"] = (places[0] - 1, places[0] + 1)
    return axis


def _distinct(texts: list[str]) -> list[str]:
    """Number texts if any two are equal, because Plotly would take them for one."""
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text} [{k}]" for k, text in enumerate(texts, start=1)]


def _legend(found: Analysis, state: str) -> str:
    if state == "complete":
        if found.seeds == 1:
            return "trained to the end"
        return f"mean of {found.seeds} seeds ± standard deviation"
    return "lacks a seed" if state == "incomplete" else state


def _hover(found: Analysis, one: Configuration) -> str:
    """Return the name, score and values of a configuration, a line each."""
    lines = [f"{found.label(one)}: {found.show_mean(one)}"]
    lines += [f"{key.rsplit('.', 1)[-1]} {show_value(value)}" for key, value in one.values.items()]
    return "<br>".join(map(html.escape, lines))


def _ticks(found: Analysis) -> dict[str, Any]:
    return {"tickformat": ".3~p" if found.metric.endswith("acc") else ".3g"}


def _apart(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis, which must not be equal."""
    return (low, high) if low < high else (low - 0.01, high + 0.01)
