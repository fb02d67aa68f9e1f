"""Write the report of a run as a page and as Markdown."""

from __future__ import annotations

from typing import Any, NamedTuple

from fieldguide.core.store import SPLITS
from fieldguide.pages import html, markdown
from fieldguide.report import run_charts
from fieldguide.report.changes import compare, data_facts, same_photos
from fieldguide.report.metric_rows import metric_rows, show_interval, show_seconds, show_value
from fieldguide.report.pictures import Picture, read_pictures
from fieldguide.results.results import ClassCounts, Missing, Results, known

# The predictions of single photos are not needed: calibration has its photos in reliability.csv.
_NEEDED = (
    *("params", "photos", "left_out", "model", "train_metrics", "curves", "test_metrics"),
    *("confusion", "classes", "reliability", "risk_coverage", "trust", "environment"),
)
_MOST_FILES = 1000  # files left out that the page names


class Report(NamedTuple):
    """What a report is written from."""

    run: Results
    other: Results | None  # the run that it is compared with
    pictures: list[Picture]  # figures of `run`
    unread: Missing | None  # why any figure is missing
    missing: list[Missing]  # everything that is missing


def read_report(run: Results, other: Results | None) -> Report:
    """Read the figures, and find out what is missing."""
    pictures, unread = read_pictures(run)
    missing = _missing(run)
    if unread and not isinstance(run.lock, Missing):
        missing.append(unread)
    if other:
        missing += _missing(other)
    return Report(run, other, pictures, unread, list(dict.fromkeys(missing)))


def render_page(report: Report) -> str:
    """Return the report as an HTML page."""
    context = _context(report)
    changed = {one.key for one in context["changes"].params} if report.other else set()
    sections: dict[str, dict[str, Any]] = {}
    for key, value in context["params"].items():
        if key not in changed:
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name or key] = value
    return html.render(
        "report.html",
        **context,
        charts=run_charts,
        param_sections=sections,
        pictures=report.pictures,
        unread=report.unread,
        most_files=_MOST_FILES,
        data_facts=data_facts(report.run),
    )


def render_markdown(report: Report) -> str:
    """Return the report as the Markdown of GitHub and GitLab."""

    def percents(values: list[float]) -> str:
        return ", ".join(f"{100 * value:.1f}" for value in values)

    return markdown.render("report.md", **_context(report), percents=percents)


def _missing(results: Results) -> list[Missing]:
    if isinstance(results.lock, Missing):  # the reason why all others are
        return [results.lock]
    found = [one for name in _NEEDED if isinstance(one := getattr(results, name), Missing)]
    if changed := results.changed_params:
        reason = f"{', '.join(changed)} changed since the results were made; run `dvc repro`"
        found.insert(0, Missing("params.yaml", results.label, reason))
    return found


def _more_counts(run: Results) -> dict[str, dict[str, ClassCounts]]:
    """Return groups and near-copies by class, if there are any."""
    groups, near_copies = known(run.groups, {}), known(run.near_copies, {})
    found = {}
    if groups != known(run.photos, {}):
        found["groups"] = groups
    if any(map(sum, near_copies.values())):
        found["near-copies"] = near_copies
    return found


def _context(report: Report) -> dict[str, Any]:
    """Return the values that both templates use, by their names in the template."""
    run, other = report.run, report.other
    before = known(other.classes, []) if other else []
    return {
        "run": run,
        "other": other,
        "notices": report.missing,
        "rows": metric_rows(run, other),
        "same_photos": other is None or same_photos(run, other),
        "changes": compare(run, other) if other else None,
        "params": known(run.params, {}),
        "splits": SPLITS,
        "totals": [sum(counts) for counts in zip(*known(run.photos, {}).values(), strict=True)],
        "more_counts": _more_counts(run),
        "weakest": sorted(known(run.classes, []), key=lambda row: (row.recall, row.name)),
        "recall_before": {row.name: row.recall for row in before},
        "missing": lambda result: isinstance(result, Missing),
        "known": known,
        "show_interval": show_interval,
        "show_seconds": show_seconds,
        "show_value": show_value,
    }
