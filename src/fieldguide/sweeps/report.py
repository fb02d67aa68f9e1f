"""Write a sweep's report: one page that opens anywhere, and its charts as pictures."""

from __future__ import annotations

from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib import rc_context

from fieldguide.core.files import write_text
from fieldguide.figures.canvas import RIGHT, VAL, WRONG, save
from fieldguide.pages.page import bar, chart, facts, page, section, table
from fieldguide.sweeps.charts import (
    cost_chart,
    curves_chart,
    history_chart,
    marginal_chart,
    parallel_chart,
)
from fieldguide.sweeps.findings import LISTED, Findings, find
from fieldguide.sweeps.importance import Influence
from fieldguide.sweeps.pictures import NAMES, draw, explain_cost, explain_importance
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import show_value

_NOTHING = '<p class="note">No parameter differs between the configurations so far.</p>'


def write_report(
    root: Path,
    sweep: str,
    *,
    metric: str,
    goal: str,
    html: Path,
    pictures: Path,
    seeds: int | None = None,
) -> list[Path]:
    """Write the page and the pictures of a sweep's finished trials.

    Args:
        root: the repository.
        sweep: name of the sweep.
        metric: val/acc or val/loss.
        goal: maximize or minimize.
        html: the page.
        pictures: folder of the PNGs; other files in it stay.
        seeds: trainings that each configuration should have; by default, as many as any has.

    Returns:
        What was written, the page first.

    Raises:
        SweepError: there is no finished trial, or none has a score.
    """
    found = find(root, sweep, metric=metric, goal=goal, seeds=seeds)
    write_text(html, render(found))
    return [html, *_write_pictures(found, pictures)]


def render(found: Findings) -> str:
    """Return the page."""
    varied = bool(found.parameters)
    what = "mean over seeds" if found.seeds > 1 else "score"
    parts = [
        _summary(found),
        section(
            "history",
            f"{found.metric} over time",
            f"Each point is a configuration, when its last training was done. The line is the best "
            f"{'95 % bound of the mean' if found.seeds > 1 else what} so far.",
            chart("history", history_chart(found)),
        ),
        section(
            "parallel",
            "Parallel coordinates",
            "Each line is a configuration. Drag along an axis to keep a range (click to free it), "
            "drag an axis's name to move it.",
            chart("parallel", parallel_chart(found)) if varied else _NOTHING,
        ),
        section(
            "importance",
            "What matters",
            f"{explain_importance(found)} Importance: how much worse the forest does with the "
            "parameter's values shuffled, as a share. Correlation: Spearman's, of each level of a "
            "category; green: higher values go with better scores."
            if varied
            else "",
            _importance_table(found) if varied else _NOTHING,
        ),
        section(
            "marginals",
            f"{found.metric} by parameter",
            "Boxes of configurations by value, pruned ones too; of many numbers, by fifths. The "
            "most important parameter comes first.",
            chart("marginals", marginal_chart(found)) if varied else _NOTHING,
        ),
        section("best", "Best configurations", _best_note(found), _best_table(found)),
        section(
            "curves",
            "Training curves of the best",
            "Solid: validation; dotted: training."
            + (" A line for each seed." if found.seeds > 1 else ""),
            chart("curves", curves_chart(found))
            if found.curves
            else '<p class="note">These trials have no curves in metrics/train/plots.</p>',
        ),
        section(
            "cost",
            "Cost",
            f"{found.cost.minutes:,.1f} minutes of training, summed over trials. "
            f"{explain_cost(found)}",
            chart("cost", cost_chart(found)),
        ),
    ]
    return page(f"Sweep {found.sweep}", "".join(parts), compiles=True)


def _write_pictures(found: Findings, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with (
        TemporaryDirectory(dir=folder, prefix=".", suffix=".partial") as aside,
        # A value is text, whatever dollar signs it holds.
        rc_context({"text.parse_math": False, "date.converter": "concise"}),
    ):
        for name, figure in draw(found):
            save(figure, Path(aside) / f"{name}.png")
            written.append(name)
        for name in NAMES:
            if name in written:
                (Path(aside) / f"{name}.png").replace(folder / f"{name}.png")
            else:  # an earlier report's
                (folder / f"{name}.png").unlink(missing_ok=True)
    return [folder / f"{name}.png" for name in written]


def _summary(found: Findings) -> str:
    best, cost = found.ranked[0], found.cost
    score = found.show(best.mean)
    pairs = [
        ("trials", f"{len(found.trials):,}"),
        ("configurations", f"{len(found.ranked):,}"),
        (
            f"best {found.metric}",
            score if best.spread is None else f"{score} ± {found.show(best.spread)}",
        ),
        ("minutes of training", f"{cost.minutes:,.1f}"),
        ("pruned", f"{cost.pruned_share:.0%}"),
    ]
    name = escape(best.trials[0].name)
    return (
        f"<h1>Sweep {escape(found.sweep)}</h1>\n{facts(pairs)}\n"
        f"<p>Best: <code>{name}</code>. Take it over with <code>dvc exp apply {name}</code>.</p>\n"
    )


def _importance_table(found: Findings) -> str:
    sign = 1 if found.goal == "maximize" else -1
    rows = [cells for row in found.influences.rows for cells in _influence_rows(row, sign)]
    header = ["parameter", "importance", "value", f"correlation with {found.metric}"]
    return table(header, rows, numbers=())


def _influence_rows(row: Influence, sign: int) -> list[list[str]]:
    share = row.importance
    shown = bar(share, text=f"{share or 0:.1%}", colour=VAL)
    rows = []
    for k, (level, value) in enumerate(row.correlations):
        colour = RIGHT if (value or 0) * sign > 0 else WRONG
        rows.append(
            [
                f"<strong>{escape(row.parameter.label)}</strong>" if k == 0 else "",
                shown if k == 0 else "",
                escape(level or ""),
                bar(value, text=f"{value or 0:+.2f}", colour=colour, signed=True),
            ]
        )
    return rows


def _best_note(found: Findings) -> str:
    if found.seeds == 1:
        return f"The first {LISTED} by {found.metric}; those pruned come last."
    side = "lower" if found.goal == "maximize" else "upper"
    return (
        f"Ranked by the bound: the {side} end of a one-sided 95 % interval of the mean over seeds "
        "(Student's t). Configurations that were pruned or lack a seed come last."
    )


def _best_table(found: Findings) -> str:
    best = found.ranked[:LISTED]
    scores = ["mean", "spread", "bound", "seeds"] if found.seeds > 1 else [found.metric]
    states = ["state"] if any(found.state(one) != "complete" for one in best) else []
    labels = [parameter.label for parameter in found.parameters]
    rows = [
        [
            str(place),
            _names(one),
            *(_scores(found, one) if found.seeds > 1 else [found.show(one.mean)]),
            *(found.state(one) for _ in states),
            *(escape(show_value(value)) for value in one.values.values()),
        ]
        for place, one in enumerate(best, start=1)
    ]
    header = ["", "experiment", *scores, *states, *labels]
    return table(header, rows, numbers=[0, *range(2, 2 + len(scores))])


def _names(one: Configuration) -> str:
    """The first experiment's name, the others' where the pointer rests."""
    names = [escape(trial.name) for trial in one.trials]
    return f'<code title="{"&#10;".join(names)}">{names[0]}</code>'


def _scores(found: Findings, one: Configuration) -> list[str]:
    spread = "–" if one.spread is None else found.show(one.spread)
    return [found.show(one.mean), spread, found.show(one.bound), str(len(one.scores))]
