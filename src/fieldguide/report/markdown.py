"""The report as Markdown, for a job's summary or a pull request's comment.

GitHub shows no picture that is inside the text, so curves are drawn by Mermaid, which GitHub and
GitLab render themselves. Figures are left to who can publish them: `write_pictures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fieldguide.core.errors import printable
from fieldguide.report.changes import compare, other_data, show_value
from fieldguide.report.scores import (
    KNOWN,
    NONE,
    Metric,
    rows_of,
    show_interval,
    show_seconds,
)
from fieldguide.results.run import Run, notes_of

WEAKEST = 5  # classes and mistakes that are listed
_TEXT = 60  # characters of a value
_ROWS = 60  # of a table; GitHub takes 65,536 characters
_SHOWN = ("test.", "best.", "parameters.all")  # metrics; the page has all
_BLOCKS = 20  # characters of a bar


def render_markdown(run: Run, other: Run | None) -> str:
    """Return the report as GitHub's and GitLab's Markdown.

    Args:
        run: what it is of.
        other: what it is compared with.
    """
    parts = [
        f"### Run report: {code(run.label)}",
        _about(run),
        _notes(run, other),
        _metrics(run, other),
        _curves(run, other),
        _classes(run, other),
        _changes(run, other) if other else _params(run),
        "Every figure, all classes and interactive charts are in `report.html`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def code(text: str) -> str:
    """Return a stranger's text as code, in which nothing is a link, a mention or markup."""
    text = " ".join(printable(text).replace("\n", " ").split())
    text = text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
    return f"`{text.replace('`', 'ˋ').replace('|', chr(92) + '|')}`" if text else NONE


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int]) -> str:
    """Return a table.

    Args:
        header: Markdown.
        rows: cells as Markdown.
        numbers: columns set flush right.
    """
    rule = ["---:" if k in numbers else "---" for k in range(len(header))]
    lines = [list(header), rule, *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about(run: Run) -> str:
    photos = " / ".join(f"{run.total(split):,}" for split in ("train", "val", "test"))
    facts = [code(show_value(run.params.get("model.name")))]
    facts += map(code, run.archives)
    if run.photos:
        facts.append(f"{photos} photos (train / val / test) of {len(run.photos):,} classes")
    seconds = run.timing.get("train.seconds")
    if seconds is not None:
        facts.append(f"trained in {show_seconds(seconds)}")
    return ", ".join(facts)


def _notes(run: Run, other: Run | None) -> str:
    lines = notes_of(run, other)
    if not lines:
        return ""
    shown = "\n".join(f"> - {code(path)}: {_plain(text)}" for path, text in lines[:WEAKEST])
    more = f"\n> - and {len(lines) - WEAKEST} more" if len(lines) > WEAKEST else ""
    return f"> **Missing or not in order**\n>\n{shown}{more}"


def _metrics(run: Run, other: Run | None) -> str:
    rows = [row for row in rows_of(run, other) if row.metric.key.startswith(_SHOWN)][:_ROWS]
    if not rows:
        return "No metrics."
    if other is None:
        cells = [[_label(r.metric), _value(r.value), r.interval] for r in rows]
        return table(["metric", "value", "95 % interval"], cells, numbers=[1, 2])
    cells = [
        [
            _label(r.metric),
            _value(r.value),
            r.interval,
            _value(r.other),
            _difference(r.difference, r.better),
        ]
        for r in rows
    ]
    header = ["metric", "value", "95 % interval", code(other.label), "difference"]
    shown = table(header, cells, numbers=[1, 2, 3, 4])
    shown += (
        "\n\nIntervals are over the test photos; they do not hold the spread between trainings."
    )
    if other_data(run, other):
        shown += " The prepared photos are not the same on both sides: differences mix both."
    return shown


def _difference(text: str, better: bool | None) -> str:  # noqa: FBT001
    return text if better is None else f"{text}, {'better' if better else 'worse'}"


def _label(metric: Metric) -> str:
    """A name of ours as it is; a key of metrics/test.json that is not known as code."""
    return metric.label if metric in KNOWN else code(metric.label)


def _value(text: str) -> str:
    """A number as it is; anything else as code."""
    return text if text == NONE or text[:1].isdigit() or text[:1] in "+-−" else code(text)


def _curves(run: Run, other: Run | None) -> str:
    mine = _percent(run.curves.get("val/acc", []))
    lines = {"train": _percent(run.curves.get("train/acc", [])), "val": mine}
    if other:
        lines["before"] = _percent(other.curves.get("val/acc", []))
    lines = {name: values for name, values in lines.items() if len(values) > 1}
    if "val" not in lines:
        return ""
    epochs = max(map(len, lines.values()))
    colours = {"train": "#8a8a8a", "val": "#1f5fa8", "before": "#d55e00"}
    palette = ", ".join(colours[name] for name in lines)
    drawn = "\n".join(f"  line [{', '.join(values)}]" for values in lines.values())
    told = {"train": "grey: training", "val": "blue: validation", "before": "orange: validation of"}
    legend = ", ".join(
        told[name] + (f" {code(other.label)}" if name == "before" and other else "")
        for name in lines
    )
    return (
        f"Accuracy by epoch, in percent; {legend}\n\n```mermaid\n"
        f'%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%\n'
        f'xychart-beta\n  x-axis "epoch" 1 --> {epochs}\n  y-axis "%" 0 --> 100\n{drawn}\n```'
    )


def _percent(values: Sequence[float | None]) -> list[str]:
    """Values up to the first that is no number: Mermaid draws no gap."""
    texts = []
    for value in values:
        if value is None:
            break
        texts.append(f"{100 * value:.1f}")
    return texts


def _classes(run: Run, other: Run | None) -> str:
    if not run.classes:
        return ""
    before = {row.name: row.recall for row in other.classes} if other else {}
    weakest = sorted(run.classes, key=lambda row: (row.recall, row.name))[:WEAKEST]
    rows = []
    for row in weakest:
        taken = NONE if row.mistaken is None else f"{code(row.mistaken[0])} ({row.mistaken[1]:,})"
        was = before.get(row.name)
        rows.append(
            [
                code(row.name),
                f"`{_bar(row.recall)}` {row.recall:.1%}",
                show_interval(row.recall_interval),
                f"{row.precision:.1%}",
                f"{row.photos:,}",
                taken,
                *([NONE if was is None else f"{was:.1%}"] if other else []),
            ]
        )
    header = ["weakest classes", "recall", "95 % interval", "precision", "photos"]
    header += ["most often taken for", *(["recall before"] if other else [])]
    return table(header, rows, numbers=[2, 3, 4, *([6] if other else [])])


def _bar(share: float) -> str:
    full = round(max(0.0, min(share, 1.0)) * _BLOCKS)
    return "█" * full + "░" * (_BLOCKS - full)


def _changes(run: Run, other: Run) -> str:
    changed = compare(run, other)
    some = [*changed.params, *changed.data, *changed.environment]
    if not some and not changed.code:
        return "Params, data, code and environment are the same."
    rows = [[code(one.key), code(one.before), code(one.after)] for one in some[:_ROWS]]
    parts = [table(["", code(other.label), "now"], rows, numbers=[])] if rows else []
    if len(some) > _ROWS:
        parts.append(f"and {len(some) - _ROWS} more")
    if changed.code:
        files = [code(one.key) for one in changed.code[:_ROWS]]
        more = f" and {len(changed.code) - _ROWS} more" if len(changed.code) > _ROWS else ""
        parts.append(f"Code and other files that stages read: {', '.join(files)}{more}")
    title = (
        f"What changed: params {len(changed.params)}, data {len(changed.data)}, "
        f"code {len(changed.code)}, environment {len(changed.environment)}"
    )
    return _folded(title, "\n\n".join(parts))


def _params(run: Run) -> str:
    rows = [[code(key), code(show_value(value))] for key, value in run.params.items()][:_ROWS]
    return _folded("Params", table(["", ""], rows, numbers=[])) if rows else ""


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _plain(text: str) -> str:
    """A message of ours that may quote a stranger."""
    return code(text) if any(c in text for c in "<>[]@#*_\\") else printable(text)
