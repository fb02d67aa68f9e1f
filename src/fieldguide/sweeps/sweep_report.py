"""Write a sweep's report: one page that opens in any browser, without a network."""

from __future__ import annotations

from pathlib import Path

from fieldguide.core.files import write_text
from fieldguide.pages.html import render
from fieldguide.sweeps import sweep_charts
from fieldguide.sweeps.analysis import LISTED, analyse
from fieldguide.sweeps.scales import show_value


def write_report(
    root: Path, sweep: str, *, metric: str, goal: str, page: Path, seeds: int | None = None
) -> None:
    """Write the page of a sweep's finished trials.

    Args:
        root: the repository.
        sweep: name of the sweep.
        metric: val/acc or val/loss.
        goal: maximize or minimize.
        page: the file that is written.
        seeds: trainings that each configuration should have; by default, as many as any has.

    Raises:
        SweepError: no trial has finished, or none has a score.
    """
    found = analyse(root, sweep, metric=metric, goal=goal, seeds=seeds)
    best = found.ranked[:LISTED]
    text = render(
        "sweep.html",
        found=found,
        best=best,
        states=[found.state(one) for one in best],
        show_value=show_value,
        history=sweep_charts.history_chart(found),
        parallel=sweep_charts.parallel_chart(found),
        marginals=sweep_charts.marginal_charts(found),
        curves=sweep_charts.curve_charts(found),
    )
    write_text(page, text)
