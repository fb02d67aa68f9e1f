"""The page of a sweep: one file that opens in any browser, without a network.

Paused configurations count with their latest score, although it is from an early epoch, because the
configurations that were trained to the end are alike and do not show what the others lack.

Plotly reads most texts as HTML, so this module escapes them. The texts on the axes of parallel
coordinates are an exception: Plotly draws them as they are.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances
from scipy.stats import spearmanr

from fieldguide.core.errors import SweepError
from fieldguide.core.files import write_text
from fieldguide.core.output import cut
from fieldguide.figures.canvas import RIGHT, TRAIN, VAL
from fieldguide.pages.html import render
from fieldguide.pages.plotly_style import label, new_figure
from fieldguide.sweeps.ranking import Configuration, rank
from fieldguide.sweeps.space import EndedRun, Sweep, Value, size_of

LISTED = 10  # best configurations in the table
FEWEST = 5  # configurations; the importance of parameters cannot be estimated from fewer
_FEWEST_PAIRS = 3  # configurations; a correlation of fewer is always 1 or -1
_MOST_PLACES = 8  # values of a stepped range; the axis of more values is continuous
_WIDE = 12  # parameters; parallel coordinates of more are wider than the page
_COLOURS = [(0, "#b5c7d8"), (0.5, "#4f9bc8"), (1, "#08306b")]  # from the worst to the best
_MARKS = {"complete": (VAL, "circle"), "incomplete": (VAL, "circle-open"), "paused": (TRAIN, "x")}
_Vector = npt.NDArray[np.float64]  # (configurations,)


@dataclass(frozen=True)
class Parameter:
    """A searched parameter, with its value in each configuration."""

    label: str  # activation, or model.activation if two sections have one
    values: list[Any]  # by configuration: all numbers, or all text
    levels: list[Any]  # distinct values, in ascending order
    range: BaseDistribution | None  # None: the axis has one place for each level


class Influence(NamedTuple):
    """The effect of one parameter on the score."""

    parameter: Parameter
    importance: float | None  # share of the sum, in [0, 1]; None if it cannot be estimated
    # Spearman's, in [-1, 1], for each level of a category; None if it cannot be estimated.
    correlations: list[tuple[str, float | None]]


def write_page(ended: Iterable[EndedRun], sweep: Sweep, page: Path) -> None:
    """Write the page of a sweep's runs.

    Args:
        ended: all runs that ended with a score.
        sweep: the sweep that they belong to.
        page: the file that is written.

    Raises:
        SweepError: no run has ended with a score.
    """
    ranked = rank(ended, sweep)
    if not ranked:
        raise SweepError(
            f"{sweep.path}: no run has ended with a score; fieldguide sweep run {sweep.path}"
        )
    parameters = read_parameters(ranked, sweep)
    varying = [one for one in parameters if len(one.levels) > 1]
    text = render(
        "sweep.html",
        sweep=sweep,
        ranked=ranked,
        best=ranked[:LISTED],
        parameters=parameters,
        varying=varying,
        influences=influences(varying, ranked),
        rungs=by_rung(ranked),
        unpruned=epochs_without_pruning(ranked, sweep),
        show_score=lambda score: show_score(score, sweep),
        show_value=show_value,
        history=history_chart(ranked, sweep),
        parallel=parallel_chart(varying, ranked, sweep),
    )
    write_text(page, text)


def read_parameters(ranked: Sequence[Configuration], sweep: Sweep) -> list[Parameter]:
    """Return the searched parameters; if any value of one is no number, all become text."""
    names = [key.split(".")[1] for key in sweep.space]
    found = []
    for (key, distribution), name in zip(sweep.space.items(), names, strict=True):
        values: list[Any] = [one.values[key] for one in ranked]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            values = [show_value(value) for value in values]
        levels = sorted(set(values))
        few = size_of(distribution) is not None and len(levels) <= _MOST_PLACES
        in_places = few or isinstance(distribution, CategoricalDistribution)
        unique = name if names.count(name) == 1 else key
        found.append(Parameter(unique, values, levels, None if in_places else distribution))
    return found


def show_value(value: Value) -> str:
    """Return a value as in params.yaml, with floats to four digits and lists without brackets."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return ", ".join(map(show_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_score(score: float, sweep: Sweep) -> str:
    """Return a score as text: accuracy in percent, as elsewhere; macro F1 and loss as numbers."""
    return f"{score:.2%}" if sweep.metric == "val/acc" else f"{score:.4f}"


def influences(parameters: Sequence[Parameter], ranked: Sequence[Configuration]) -> list[Influence]:
    """Return each parameter's importance for the score and its correlation with the score.

    Importance: mean decrease in impurity of a random forest that predicts the score. Correlation:
    Spearman's, because neither a logarithmic range nor one training that diverged can dominate it.

    Args:
        parameters: those that vary.
        ranked: configurations, in the order of the parameters' values.

    Returns:
        The most important parameter first.
    """
    scores = np.array([one.mean for one in ranked])
    shares = _importances(parameters, scores)
    found = [
        Influence(one, shares.get(one.label), _correlations(one, scores)) for one in parameters
    ]
    return sorted(found, key=lambda one: -(one.importance or 0))


def _importances(parameters: Sequence[Parameter], scores: _Vector) -> dict[str, float]:
    """Return the share of each parameter by its label; nothing if it cannot be estimated."""
    if len(scores) < FEWEST or np.ptp(scores) == 0 or not parameters:
        return {}
    space: dict[str, BaseDistribution] = {
        one.label: one.range or CategoricalDistribution(one.levels) for one in parameters
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it prints a line for each study
    study = optuna.create_study()
    study.add_trials(
        optuna.create_trial(
            params={one.label: one.values[k] for one in parameters},
            distributions=space,
            value=float(score),
        )
        for k, score in enumerate(scores)
    )
    # Optuna's default, fANOVA, takes 19 s for 1,000 configurations of ten parameters; this 0.3 s.
    return get_param_importances(study, evaluator=MeanDecreaseImpurityImportanceEvaluator(seed=0))


def _correlations(parameter: Parameter, scores: _Vector) -> list[tuple[str, float | None]]:
    values, levels = np.array(parameter.values), parameter.levels
    if not isinstance(levels[0], str):
        return [("", _spearman(values, scores))]
    if levels == ["false", "true"]:
        return [("", _spearman(values == "true", scores))]
    return [(level, _spearman(values == level, scores)) for level in levels]


def _spearman(values: npt.NDArray[np.generic], scores: _Vector) -> float | None:
    if len(scores) < _FEWEST_PAIRS or np.ptp(scores) == 0:
        return None
    return float(spearmanr(values.astype(float), scores).statistic)


def by_rung(ranked: Sequence[Configuration]) -> list[tuple[str, list[Configuration]]]:
    """Group configurations by how far their first seed was trained; name each group."""
    paused = [one for one in ranked if one.state == "paused"]
    groups = [
        (f"paused after epoch {rung}", [one for one in paused if one.epochs == rung])
        for rung in sorted({one.epochs for one in paused})
    ]
    return [*groups, ("trained to the end", [one for one in ranked if one.state != "paused"])]


def epochs_without_pruning(ranked: Sequence[Configuration], sweep: Sweep) -> float | None:
    """Estimate how many epochs the sweep would have trained if it had paused no configuration.

    A paused configuration would have been trained with every seed, for the mean number of epochs
    of the trainings that were not paused. None if all configurations are paused.
    """
    whole = [one for one in ranked if one.state != "paused"]
    if not whole:
        return None
    epochs = sum(one.epochs for one in whole)
    trainings = sum(len(one.scores) for one in whole)
    return epochs + (len(ranked) - len(whole)) * sweep.seeds * epochs / trainings


def running_best(ranked: Sequence[Configuration], sweep: Sweep) -> list[tuple[datetime, float]]:
    """Return the time and bound of each new best configuration, then the last time once more.

    Only complete configurations can be best; if there is none, all can.
    """
    able = [one for one in ranked if one.state == "complete"] or ranked
    sign = 1 if sweep.goal == "maximize" else -1
    steps: list[tuple[datetime, float]] = []
    for one in sorted(able, key=lambda one: one.ended):
        if not steps or sign * one.bound > sign * steps[-1][1]:
            steps.append((one.ended, one.bound))
    return [*steps, (max(one.ended for one in ranked), steps[-1][1])]


def history_chart(ranked: Sequence[Configuration], sweep: Sweep) -> go.Figure:
    """Draw scores by the time they were known, and the best so far."""
    figure = new_figure(height=430)
    for state, (colour, symbol) in _MARKS.items():
        some = [one for one in ranked if one.state == state]
        if some:
            spread = [one.spread or 0 for one in some]
            figure.add_scatter(
                x=[one.ended for one in some],
                y=[one.mean for one in some],
                error_y={"array": spread, "thickness": 1, "width": 2} if any(spread) else None,
                mode="markers",
                name=state,
                marker={"color": colour, "symbol": symbol, "size": 8},
                hovertext=[_hover(one, sweep) for one in some],
                hoverinfo="text",
            )
    times, bests = zip(*running_best(ranked, sweep), strict=True)
    figure.add_scatter(
        x=times,
        y=bests,
        mode="lines",
        name="best so far" if sweep.seeds == 1 else "best bound so far",
        line={"color": RIGHT, "shape": "hv", "width": 2},
        hoverinfo="skip",
    )
    figure.update_xaxes(title="end of training (UTC)")
    if len({one.ended for one in ranked}) == 1:
        minute = timedelta(minutes=1)
        figure.update_xaxes(range=[times[0] - minute, times[0] + minute])
    scores = [score for one in ranked for score in one.scores]
    if min(scores) == max(scores):  # Plotly would show -50 % to 150 %
        figure.update_yaxes(range=_apart(scores[0], scores[0]))
    return figure.update_yaxes(title=sweep.metric, tickformat=_tick_format(sweep))


def _hover(one: Configuration, sweep: Sweep) -> str:
    """Return the name, score, epochs and values of a configuration, a line each."""
    lines = [
        f"{sweep.name}-{one.number:04d}: {show_score(one.mean, sweep)}, {one.epochs} epochs",
        *(f"{key.split('.')[1]} {show_value(value)}" for key, value in one.values.items()),
    ]
    return "<br>".join(html.escape(cut(line, 60)) for line in lines)


def parallel_chart(
    parameters: Sequence[Parameter], ranked: Sequence[Configuration], sweep: Sweep
) -> go.Figure:
    """Draw every configuration as a line through its values; the better, the darker.

    This is not optuna.visualization.plot_parallel_coordinate because that draws fixed lines, on
    which a reader can neither select a range nor move an axis.
    """
    scores = [one.mean for one in ranked]
    score: dict[str, Any] = {
        "label": sweep.metric,
        "values": scores,
        "tickformat": _tick_format(sweep),
    }
    score["range"] = _apart(min(scores), max(scores))
    sign = 1 if sweep.goal == "maximize" else -1
    colours = [sign * score for score in scores]  # Plotly draws the highest on top
    # One failed training must not take up the whole range of colours.
    least, most = _apart(*np.quantile(colours, [0.1, 1]).tolist())
    figure = new_figure(height=520)
    figure.add_parcoords(
        dimensions=[*map(_axis, parameters), score],
        labelangle=-20,
        rangefont={"color": "#fff0"},  # the ends of axes, which overlap the labels
        line={"color": colours, "colorscale": _COLOURS, "cmin": least, "cmax": most},
        unselected={"line": {"color": "#dddddd", "opacity": 0.25}},
    )
    width = 100 * len(parameters) if len(parameters) > _WIDE else None  # pixels; None: the page's
    return figure.update_layout(margin={"t": 95, "l": 120, "r": 30, "b": 30}, width=width)


def _axis(parameter: Parameter) -> dict[str, Any]:
    """Return an axis of the parallel coordinates: a range, or one place for each level.

    On an axis with ticks of ours, Plotly extends a selection to the next ticks.
    """
    axis = {"label": label(parameter.label), "values": parameter.values}
    levels = parameter.levels
    if parameter.range is None:
        texts = [cut(show_value(level), 16) for level in levels]
        if len(set(texts)) < len(texts):  # Plotly would take equal texts for one
            texts = [f"{text} [{k}]" for k, text in enumerate(texts, start=1)]
        axis |= {"tickvals": list(range(len(levels))), "ticktext": texts}
        axis["values"] = [levels.index(value) for value in parameter.values]
    elif isinstance(parameter.range, FloatDistribution) and parameter.range.log:
        ticks = np.geomspace(levels[0], levels[-1], 9)
        axis |= {"tickvals": np.log10(ticks).tolist()}
        axis["ticktext"] = [f"{tick:.3g}" for tick in ticks]
        axis["values"] = np.log10(parameter.values).tolist()
    return axis


def _tick_format(sweep: Sweep) -> str:
    return ".3~p" if sweep.metric == "val/acc" else ".3~g"


def _apart(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis, which must not be equal."""
    return (low, high) if low < high else (low - 0.01, high + 0.01)
