"""The report as one page that opens anywhere, with nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fieldguide.pages.page import facts, page, section, table
from fieldguide.report import sections
from fieldguide.report.changes import Change, Changes, compare, other_data, show_value
from fieldguide.report.scores import (
    NONE,
    Row,
    headline,
    rows_of,
    show_number,
    show_seconds,
)
from fieldguide.report.sections import absent, folded, pair
from fieldguide.results.run import (
    ENVIRONMENT,
    TEST,
    TIMING,
    Run,
    notes_of,
)

_CODE = ("src/", "stages/")
_CALIBRATED = (
    "Is the confidence earned? On the dashed line a classifier that says 80 % is right in 80 % of "
    "cases. Bars are 95 % intervals."
)


def render(run: Run, other: Run | None) -> str:
    """Return the page.

    Args:
        run: what it is of.
        other: what it is compared with.
    """
    changed = compare(run, other) if other else None
    parts: list[tuple[str, str, str, str]] = [
        ("metrics", "Metrics", _metrics_note(run, other), _metrics(run, other)),
        ("curves", "Training curves", sections.curves_note(run), sections.curves(run, other)),
        ("classes", "Class by class", sections.classes_note(run), sections.classes(run, other)),
        (
            "confusion",
            "What is taken for what",
            "Rows are true classes, columns what they were called; colour is the share of the row.",
            sections.confusion(run),
        ),
        (
            "calibration",
            "Calibration",
            _CALIBRATED,
            sections.calibration(run),
        ),
        ("figures", "Figures", "As the stage visualize drew them.", sections.figures(run)),
        ("data", "Data", sections.data_note(run), sections.data(run)),
        ("params", "Params", _params_note(changed), _params(run, changed)),
        (
            "made",
            "Made with",
            "Seconds are of each stage's last run; they differ from machine to machine.",
            _made(run, other),
        ),
    ]
    if changed and other:
        note = f"Besides scores and params, which are below. Before: {other.label}."
        parts.insert(1, ("changes", "What else changed", note, _changes(changed)))
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, *_ in parts)
    body = _head(run, other) + f"<nav>{links}</nav>\n" + _notices(run, other)
    return page(f"Run report: {run.label}", body + "".join(section(*part) for part in parts))


def _head(run: Run, other: Run | None) -> str:
    about = f" – {escape(run.about)}" if run.about else ""
    against = (
        f"<p>Compared with <strong>{escape(other.label)}</strong>"
        f"{f' – {escape(other.about)}' if other.about else ''}.</p>\n"
        if other
        else ""
    )
    model = show_value(run.params.get("model.name"))
    made = f"<p>{escape(model)} on {escape(', '.join(run.archives) or NONE)}.</p>\n"
    return (
        f"<h1>Run report</h1>\n<p><strong>{escape(run.label)}</strong>{about}</p>\n{against}{made}"
        f"{facts(headline(run))}\n"
    )


def _notices(run: Run, other: Run | None) -> str:
    lines = notes_of(run, other)
    if not lines:
        return ""
    items = "".join(
        f"<li><code>{escape(path)}</code>: {escape(text)}</li>\n" for path, text in lines
    )
    return (
        '<div class="notice" id="notices"><strong>Missing or not in order</strong>'
        f"<ul>\n{items}</ul></div>\n"
    )


def _metrics_note(run: Run, other: Run | None) -> str:
    note = (
        "Intervals are 95 %, over the test photos: Wilson's of shares, a bootstrap of macro F1. "
        "They do not hold the spread between trainings."
    )
    if other is None:
        return note
    if other_data(run, other):
        note += " The prepared photos are not the same on both sides: differences mix both."
    return f"{note} Whether a difference is more than noise, fieldguide check decides."


def _metrics(run: Run, other: Run | None) -> str:
    rows = rows_of(run, other)
    if not rows:
        return absent(run, TEST)
    header = ["metric", "value", "95 % interval"]
    if other is None:
        cells = [[escape(r.metric.label), escape(r.value), r.interval] for r in rows]
        return table(header, cells, numbers=[1, 2], texts=[0])
    header += [other.label, "difference"]
    cells = [
        [
            escape(row.metric.label),
            escape(row.value),
            row.interval,
            escape(row.other),
            _difference(row),
        ]
        for row in rows
    ]
    return table(header, cells, numbers=[1, 2, 3, 4], texts=[0])


def _difference(row: Row) -> str:
    if row.better is None:
        return row.difference
    word = "better" if row.better else "worse"
    return f'<span class="{word}">{row.difference}, {word}</span>'


def _changes(changed: Changes) -> str:
    code = [change for change in changed.code if change.key.startswith(_CODE)]
    inputs = [change for change in changed.code if change not in code]
    parts = [
        ("Data and classifier", [*changed.data, *inputs]),
        ("Code that stages use (MD5)", code),
        ("Environment", changed.environment),
    ]
    found = [
        f"<div><h3>{title}</h3>\n{folded(_change_table(some), len(some))}</div>"
        for title, some in parts
        if some
    ]
    return f'<div class="pair">{"".join(found)}</div>' if found else '<p class="note">Nothing.</p>'


def _change_table(some: Sequence[Change]) -> str:
    rows = [
        [escape(one.key), escape(one.before), f"<mark>{escape(one.after)}</mark>"] for one in some
    ]
    return table(["", "before", "now"], rows, numbers=(), texts=[0, 1, 2])


def _params_note(changed: Changes | None) -> str:
    if changed is None:
        return "Of params.yaml, which explains each with its unit and range."
    if not changed.params:
        return "The same on both sides."
    return f"{len(changed.params)} changed; they come first."


def _params(run: Run, changed: Changes | None) -> str:
    if not run.params:
        return absent(run, "params.yaml")
    before = {one.key: one for one in changed.params} if changed else {}
    head = _change_table(list(before.values())) if before else ""
    sections: dict[str, list[list[str]]] = {}
    for key, value in run.params.items():
        if key not in before:
            name, _, rest = key.partition(".")
            sections.setdefault(name, []).append([escape(rest or key), escape(show_value(value))])
    tables = [
        f"<div><h3>{escape(name)}</h3>{table(['', ''], rows, numbers=(), texts=[1])}</div>"
        for name, rows in sections.items()
    ]
    return f'{head}<div class="columns">{"".join(tables)}</div>'


def _made(run: Run, other: Run | None) -> str:
    rows = []
    for key, value in run.timing.items():
        show = show_seconds if key.endswith(".seconds") else show_number
        label = key.removesuffix(".seconds").replace("_", " ").replace(".", ", ")
        also = [escape(show(other.timing.get(key)))] if other else []
        rows.append([escape(label), escape(show(value)), *also])
    header = ["stage", "time", *([other.label] if other else [])]
    timing = table(header, rows, numbers=[1, 2]) if rows else absent(run, TIMING)
    facts_ = [[escape(key), escape(show_value(v))] for key, v in run.environment.items()]
    machine = table(["", ""], facts_, numbers=(), texts=[1]) if facts_ else absent(run, ENVIRONMENT)
    return pair(f"<div><h3>Time</h3>{timing}</div>", f"<div><h3>Environment</h3>{machine}</div>")
