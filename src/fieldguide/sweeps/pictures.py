"""The report's charts as PNGs, for a README or a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from fieldguide.figures.canvas import GREY, HEADING, RIGHT, TRAIN, VAL, WRONG, heading, short
from fieldguide.sweeps.charts import COLOURS, colour_limits, curve_label, first_of_place
from fieldguide.sweeps.findings import LISTED, Findings, created
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import Parameter, show_value

_COLUMNS = 4  # of box plots
_COLUMN = 0.95  # inches of a value in the table of the best
_LONGEST = 14  # characters of a value beside an axis
NAMES = ("history", "parallel", "importance", "marginals", "best", "curves", "cost")


def draw(found: Findings) -> Iterator[tuple[str, Figure]]:
    """Yield the name and figure of every picture that there is something to draw for."""
    makers: dict[str, Callable[[Findings], Figure]] = {"history": _history}
    if found.parameters:
        makers |= {"parallel": _parallel, "importance": _importance, "marginals": _marginals}
    makers["best"] = _best
    if found.curves:
        makers["curves"] = _curves
    makers["cost"] = _cost
    for name, function in makers.items():
        yield name, function(found)


def _history(found: Findings) -> Figure:
    figure = _figure(
        (10, 5),
        f"{found.sweep}: the best {found.metric} of {_count(found)} is "
        f"{found.show(found.ranked[0].mean)}",
        "A point: a configuration when it was done"
        + (f", mean ± standard deviation of {found.seeds} seeds" if found.seeds > 1 else "")
        + f". Line: best {'bound of the mean' if found.seeds > 1 else 'score'} so far.",
    )
    axes = _axes(figure, left=0.8, width=9)
    for state, colour, inside, marker in (
        ("complete", VAL, VAL, "o"),
        ("incomplete", VAL, "white", "o"),
        ("pruned", TRAIN, TRAIN, "x"),
    ):
        some = [one for one in found.ranked if found.state(one) == state]
        if some:
            axes.errorbar(
                _times([created(one) for one in some]),
                [one.mean for one in some],
                yerr=[one.spread or 0 for one in some] if found.seeds > 1 else None,
                linestyle="none",
                markersize=5,
                elinewidth=1,
                capsize=2,
                label={"complete": "trained to the end", "incomplete": "lacks a seed"}.get(
                    state, state
                ),
                color=colour,
                markerfacecolor=inside,
                marker=marker,
            )
    times, bests = zip(*found.running_best(), strict=True)
    axes.step(_times(times), bests, where="post", color=RIGHT, linewidth=2, label="best so far")
    if times[0] == times[-1]:
        minute = timedelta(minutes=1)
        axes.set_xlim(*_times([times[0] - minute, times[0] + minute]))
    axes.set(xlabel="created (UTC)", ylabel=found.metric)
    _score_axis(found, axes)
    axes.legend(frameon=False, loc="best")
    return figure


def _parallel(found: Findings) -> Figure:
    names = [short(parameter.label) for parameter in found.parameters]
    width = max(6.0, 1.25 * (len(names) + 0.8))
    above = 0.1 + 0.04 * max(map(len, names))  # of the turned names
    figure = _figure(
        (width + 1.5, 5.4 + above),
        f"{found.sweep}: which values the best of {_count(found)} have",
        f"A line: a configuration. The brighter, the better its {found.metric}.",
    )
    axes = _axes(figure, left=0.3, width=width, bottom=0.2, top=above + 0.1)
    scores = np.array([one.mean for one in found.ranked])
    low, high = colour_limits(found)
    colours = colormaps["viridis" if found.goal == "maximize" else "viridis_r"]
    columns = [_unit(parameter.positions()) for parameter in found.parameters]
    lines = np.stack([*columns, _unit(scores.tolist())], axis=1)  # (configurations, axes)
    places = np.arange(lines.shape[1])
    worst_first = lines[::-1]
    axes.add_collection(
        LineCollection(
            [np.column_stack([places, line]) for line in worst_first],
            colors=colours(Normalize(low, high)(scores[::-1])),
            linewidths=1.2,
            alpha=float(np.clip(60 / len(scores), 0.25, 0.8)),
        )
    )
    for k, parameter in enumerate(found.parameters):
        _upright(axes, k, _axis_ticks(parameter))
    ends = [(0.0, found.show(scores.min())), (1.0, found.show(scores.max()))]
    _upright(axes, len(names), ends if scores.min() < scores.max() else [(0.5, ends[0][1])])
    axes.set(xlim=(-0.3, len(names) + 0.5), ylim=(-0.04, 1.04), yticks=[])
    axes.set_xticks(places, [*names, found.metric], rotation=25, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    scale = _axes(figure, left=width + 0.5, width=0.14, bottom=0.8, top=above + 0.7)
    figure.colorbar(ScalarMappable(Normalize(low, high), colours), cax=scale)
    _score_axis(found, scale)
    scale.grid(visible=False)
    return figure


def _importance(found: Findings) -> Figure:
    influences = found.influences
    first = influences.rows[0]
    title = (
        f"{found.sweep}: too little to tell what matters for {found.metric}"
        if first.importance is None or (influences.explained or 0) <= 0
        else f"{found.sweep}: {first.parameter.label} matters most for {found.metric}"
    )
    bars = [
        (row.parameter.label if level is None else f"{row.parameter.label} = {level}", value)
        for row in influences.rows
        for level, value in row.correlations
    ]
    height = 0.3 * max(len(bars), len(influences.rows)) + 1.6
    figure = _figure((11, max(height, 3.2)), title, explain_importance(found))
    names = [row.parameter.label for row in influences.rows]
    margins = [_margin(texts) for texts in (names, [name for name, _ in bars])]
    left = _axes(figure, left=margins[0], width=5.3 - margins[0], bottom=0.4, top=0.3)
    right = _axes(figure, left=5.5 + margins[1], width=5.3 - margins[1], bottom=0.4, top=0.3)
    _bars(left, names, [row.importance for row in influences.rows], [VAL] * len(names))
    left.set(title="importance (share)", xlim=(0, None))
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    sign = 1 if found.goal == "maximize" else -1
    colours = [RIGHT if (value or 0) * sign > 0 else WRONG for _, value in bars]
    _bars(right, [name for name, _ in bars], [value for _, value in bars], colours)
    right.set(xlim=(-1, 1))
    right.set_title(f"correlation with {found.metric} (green: better)", loc="right")
    right.xaxis.set_major_locator(MultipleLocator(0.5))
    right.axvline(0, color=GREY, linewidth=0.8)
    return figure


def explain_importance(found: Findings) -> str:
    """Say from what importance was found and how far to trust it."""
    influences = found.influences
    pruned = "pruned ones too" if influences.with_pruned else "none pruned"
    several = "s" if influences.configurations > 1 else ""
    text = f"From {influences.configurations:,} configuration{several}, {pruned}."
    if influences.explained is None:
        return f"{text} Too few for importance, or all scores equal."
    return (
        f"{text} A random forest explains {max(influences.explained, 0):.0%} of the variance of "
        "scores it did not see."
    )


def _marginals(found: Findings) -> Figure:
    parameters = [row.parameter for row in found.influences.rows]
    columns = min(_COLUMNS, len(parameters))
    rows = -(-len(parameters) // columns)
    width, height = max(3.2 * columns, 8), 2.7 * rows + HEADING
    figure = _figure(
        (width, height),
        f"{found.sweep}: {found.metric} by the value of each parameter",
        "Box: the middle half of the configurations; bar: their median; point: a configuration.",
    )
    below = 0.85  # inches of turned values and the next title
    grid = figure.subplots(
        rows,
        columns,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "left": 0.65 / width,
            "right": 1 - 0.15 / width,
            "bottom": below / height,
            "top": 1 - (HEADING + 0.3) / height,
            "wspace": 0.08,
            "hspace": below / (2.7 - below),
        },
    )
    jitter = np.random.default_rng(0)  # of points beside each other
    for axes, parameter in zip(grid.flat, parameters, strict=False):
        groups = parameter.groups()
        scores = [[found.ranked[k].mean for k in members] for _, members in groups]
        axes.boxplot(scores, widths=0.6, showfliers=False, medianprops={"color": RIGHT, "lw": 2})
        for k, some in enumerate(scores, start=1):
            beside = k + jitter.uniform(-0.18, 0.18, len(some))
            axes.scatter(beside, some, s=9, color=VAL, alpha=0.6, linewidths=0, zorder=3)
        texts = ["\n".join(_cut(end) for end in text.split(" – ")) for text, _ in groups]
        longest = max(max(map(len, text.split("\n"))) for text in texts)
        turned = longest * len(texts) > 40  # noqa: PLR2004 - characters that fit below an axis
        axes.set_xticks(
            range(1, len(texts) + 1),
            texts,
            fontsize=8,
            rotation=30 if turned else 0,
            ha="right" if turned else "center",
        )
        axes.set_title(short(parameter.label), fontsize=10)
        _score_axis(found, axes)
    for axes in list(grid.flat)[len(parameters) :]:
        axes.set_visible(False)
    return figure


def _best(found: Findings) -> Figure:
    best = found.ranked[:LISTED]
    table_width = 3.0 + _COLUMN * len(found.parameters)
    figure = _figure(
        (table_width + 4.0, 0.34 * len(best) + 2.5),
        f"{found.sweep}: the best {len(best)} of {_count(found)}",
        f"Point: {found.metric}"
        + (
            f", mean of {found.seeds} seeds; thin line: standard deviation; green: the bound that "
            "ranks, below which the mean is in 5 % of cases."
            if found.seeds > 1 and found.goal == "maximize"
            else f", mean of {found.seeds} seeds; thin line: standard deviation; green: the bound "
            "that ranks, above which the mean is in 5 % of cases."
            if found.seeds > 1
            else "."
        ),
    )
    table = _axes(figure, left=0.2, width=table_width, top=0.9)
    axes = _axes(figure, left=table_width + 0.6, width=3.2, top=0.9)
    rows = range(len(best))
    axes.errorbar(
        [one.mean for one in best],
        rows,
        xerr=[one.spread or 0 for one in best] if found.seeds > 1 else None,
        linestyle="none",
        marker="o",
        color=VAL,
        elinewidth=1,
        capsize=2,
    )
    if found.seeds > 1:
        axes.scatter([one.bound for one in best], rows, marker="|", s=90, color=RIGHT, zorder=3)
    _score_axis(found, axes, along="x")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set(ylim=(len(best) - 0.5, -0.5), xlabel=found.metric, yticks=rows)
    axes.tick_params(left=False, labelleft=False)
    _best_table(found, table, best)
    return figure


def _best_table(found: Findings, axes: Axes, best: Sequence[Configuration]) -> None:
    """Write rank, configuration, score and values, a row each."""
    columns = [parameter.label for parameter in found.parameters]
    starts = [0.0, 0.35, 1.6, *(2.6 + _COLUMN * k for k in range(len(columns)))]
    for start, text in zip(starts[1:], ["configuration", found.metric, *columns], strict=True):
        axes.text(start, -0.7, _cut(text, 20), rotation=25, fontsize=8.5, color=GREY, va="bottom")
    for row, one in enumerate(best):
        values = [show_value(value) for value in one.values.values()]
        mark = "" if found.state(one) == "complete" else f" ({found.state(one)})"
        texts = [
            f"{row + 1}",
            _cut(found.label(one)) + mark,
            found.show(one.mean),
            *map(_cut, values),
        ]
        for start, text in zip(starts, texts, strict=True):
            axes.text(start, row, text, fontsize=9, va="center")
    width = 3.0 + _COLUMN * len(columns)
    axes.set(xlim=(0, width), ylim=(len(best) - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _curves(found: Findings) -> Figure:
    count = len({curve.place for curve in found.curves})
    figure = _figure(
        (11, 4.8),
        f"{found.sweep}: training of the best {count}"
        if count > 1
        else f"{found.sweep}: training of the best",
        "Thick: validation; dotted: training"
        + ("; a line for each seed." if found.seeds > 1 else "."),
    )
    for left, kind in ((0.7, "acc"), (6.2, "loss")):
        axes = _axes(figure, left=left, width=4.65, top=0.3)
        for curve in found.curves:
            for split, style in (("train", ":"), ("val", "-")):
                values = curve.values.get(f"{split}/{kind}", [])
                axes.plot(
                    range(1, len(values) + 1),
                    values,
                    linestyle=style,
                    linewidth=1 if split == "train" else 1.8,
                    marker="o" if len(values) == 1 else None,
                    color=COLOURS[curve.place - 1],
                    label=curve_label(found, curve)
                    if split == "val" and first_of_place(found.curves, curve)
                    else None,
                )
        axes.set(xlabel="epoch", title={"acc": "accuracy", "loss": "loss (cross-entropy)"}[kind])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _clean(axes)
        if kind == "acc":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.legend(frameon=False)
    return figure


def _cost(found: Findings) -> Figure:
    cost = found.cost
    figure = _figure(
        (9, 3.2),
        f"{found.sweep}: {cost.minutes:,.1f} minutes of training",
        explain_cost(found),
    )
    for bottom, name, whole, parts in zip(
        (1.4, 0.5),
        ("trials", "minutes"),
        (cost.finished + cost.pruned, cost.minutes),
        ((cost.finished, cost.pruned), (cost.finished_minutes, cost.pruned_minutes)),
        strict=True,
    ):
        axes = _axes(figure, left=0.9, width=7.9, bottom=bottom, top=3.2 - HEADING - bottom - 0.8)
        start = 0.0
        for part, colour, label in zip(
            parts, (VAL, TRAIN), ("trained to the end", "pruned"), strict=True
        ):
            axes.barh([name], [part], left=start, color=colour, label=label)
            if part > 0.04 * whole:  # wide enough for its number
                number = f"{part:,}" if name == "trials" else f"{part:,.1f}"
                axes.text(start + part / 2, 0, number, ha="center", va="center", color="white")
            start += part
        axes.set(xlim=(0, whole or 1), xticks=[])
        axes.spines[:].set_visible(False)
        axes.tick_params(left=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False)
    return figure


def explain_cost(found: Findings) -> str:
    """Say how many trials were pruned, and of how many the time is not known."""
    cost = found.cost
    text = f"{cost.pruned} of {cost.finished + cost.pruned} trials pruned ({cost.pruned_share:.0%})"
    if not cost.untimed:
        return f"{text}."
    verb = "has" if cost.untimed == 1 else "have"
    return f"{text}; {cost.untimed} {verb} no recorded time."


def _count(found: Findings) -> str:
    count = len(found.ranked)
    return f"{count:,} configuration{'s' if count > 1 else ''}"


def _figure(size: tuple[float, float], title: str, subtitle: str) -> Figure:
    """Make a figure; its axes are placed by hand, for Matplotlib's layouts double the time."""
    figure = Figure(figsize=size)
    heading(figure, title, subtitle)
    return figure


def _axes(
    figure: Figure, *, left: float, width: float, bottom: float = 0.6, top: float = 0.1
) -> Axes:
    """Add axes, from the figure's left and bottom edge to `top` below its heading, in inches."""
    whole, height = figure.get_size_inches()
    return figure.add_axes(
        (left / whole, bottom / height, width / whole, 1 - (bottom + top + HEADING) / height)
    )


def _bars(axes: Axes, names: list[str], values: list[float | None], colours: list[str]) -> None:
    """Draw a bar for each name, from the top; a dash where there is no value."""
    rows = range(len(names))
    axes.barh(rows, [value or 0 for value in values], color=colours, height=0.7)
    for row, value in zip(rows, values, strict=True):
        if value is None:
            axes.text(0, row, " –", va="center", color=GREY)
    axes.set_yticks(rows, [short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    _clean(axes)
    axes.grid(visible=False, axis="y")


def _margin(names: Sequence[str]) -> float:
    """Inches that names beside an axis need."""
    return 0.2 + 0.085 * max(len(short(name)) for name in names)


def _axis_ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """Height in [0, 1] and text of each tick of an axis of the parallel coordinates."""
    places, ticks = parameter.positions(), parameter.ticks()
    low, high = min(places), max(places)
    if low == high:
        return [(0.5, _cut(ticks[0][1]))] if ticks else []
    if not ticks:
        steps = MaxNLocator(5).tick_values(low, high)
        ticks = [(float(step), f"{step:.4g}") for step in steps if low <= step <= high]
    return [((place - low) / (high - low), _cut(text)) for place, text in ticks]


def _upright(axes: Axes, place: float, ticks: list[tuple[float, str]]) -> None:
    """Draw an axis of the parallel coordinates."""
    axes.axvline(place, ymin=0.04 / 1.08, ymax=1.04 / 1.08, color=GREY, linewidth=0.8)
    for height, text in ticks:
        axes.text(
            place + 0.04,
            height,
            text,
            fontsize=8,
            va="center",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
        )


def _times(moments: Sequence[datetime]) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    """UTC, as Matplotlib takes it."""
    return np.array([round(moment.timestamp()) for moment in moments], dtype="datetime64[s]")


def _unit(places: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scale to [0, 1]; equal ones lie in the middle."""
    values = np.array(places, dtype=float)
    extent = float(np.ptp(values))
    return (values - values.min()) / extent if extent else np.full_like(values, 0.5)


def _score_axis(found: Findings, axes: Axes, along: str = "y") -> None:
    axis = axes.xaxis if along == "x" else axes.yaxis
    if found.metric.endswith("acc"):
        low, high = sorted(axis.get_view_interval())
        close = high - low < 0.05  # noqa: PLR2004 - ticks less than a percent apart
        axis.set_major_formatter(PercentFormatter(1, decimals=1 if close else 0))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _cut(text: str, length: int = _LONGEST) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
