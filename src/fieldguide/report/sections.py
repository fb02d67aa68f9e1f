"""Parts of the page that show what a run did: curves, classes, calibration, figures and data."""

from __future__ import annotations

import base64
from html import escape

from fieldguide.figures.canvas import VAL
from fieldguide.pages.page import bar, chart, table
from fieldguide.report.changes import show_value
from fieldguide.report.charts import (
    CELLS,
    CLASSES,
    calibration_chart,
    class_chart,
    confusion_chart,
    curve_chart,
    photos_chart,
)
from fieldguide.report.pictures import CAPTIONS, caption, shrunk, sorted_figures
from fieldguide.report.scores import NONE, number, show_interval, show_size
from fieldguide.results.classes import ClassScores
from fieldguide.results.predictions import PREDICTIONS
from fieldguide.results.run import (
    CONFUSION,
    CURVES,
    DATA,
    FIGURES,
    MODEL,
    PER_CLASS,
    PREPARED,
    RELIABILITY,
    SPLITS,
    Run,
)

MISTAKES = 15  # that are listed
_OPEN = 30  # rows up to which a table is open from the start


def absent(run: Run, *paths: str) -> str:
    """What stands where something cannot be shown."""
    why = [f"{path}: {run.notes[path]}" for path in paths if path in run.notes]
    text = "; ".join(why) or f"{' and '.join(paths)}: nothing there"
    return f'<p class="note">{escape(text)}</p>'


def pair(*parts: str) -> str:
    """Parts beside each other, where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def folded(content: str, rows: int) -> str:
    """A long table is folded away."""
    if rows <= _OPEN:
        return content
    return f"<details><summary>{rows:,} rows</summary>{content}</details>"


def curves_note(run: Run) -> str:
    """How to read the curves."""
    note = (
        "By epoch. Training's values are of augmented photos, its loss with label smoothing, where "
        "params say so; validation's never."
    )
    kept = run.scores.get("best.epoch")
    return note if number(kept) is None else f"{note} The weights of epoch {kept} were kept."


def curves(run: Run, other: Run | None) -> str:
    """Accuracy and loss."""
    paths = [path for path in run.notes if path.startswith("metrics/train/plots/")]
    if not any(run.curves.get(name) for name in CURVES):
        return absent(run, *(paths or ["metrics/train/plots"]))
    figures = {
        "accuracy": curve_chart(run, other, "acc"),
        "loss": curve_chart(run, other, "loss"),
    }
    return pair(*(f"<div>{chart(name, figure)}</div>" for name, figure in figures.items()))


def _weakest(run: Run) -> list[ClassScores]:
    return sorted(run.classes, key=lambda row: (row.recall, row.name))


def classes_note(run: Run) -> str:
    """How to read the classes."""
    note = (
        "Recall: the share of a class's photos that were called so. Precision: the share of what "
        "was called so that is. The weakest class comes first."
    )
    if len(run.classes) > CLASSES:
        note += f" The chart has the weakest {CLASSES} of {len(run.classes):,}, the table all."
    return note


def classes(run: Run, other: Run | None) -> str:
    """A chart and a table of the classes."""
    if not run.classes:
        return absent(run, PER_CLASS)
    rows = _weakest(run)
    before = {row.name: row.recall for row in other.classes} if other else {}
    header = ["class", "photos", "recall", "95 % interval", "precision", "95 % interval", "F1"]
    header += ["most often taken for", *(["recall before"] if other else [])]
    cells = []
    for row in rows:
        taken = NONE if row.mistaken is None else f"{row.mistaken[0]} ({row.mistaken[1]:,})"
        was = before.get(row.name)
        cells.append(
            [
                escape(row.name),
                f"{row.photos:,}",
                f"{row.recall:.1%}",
                show_interval(row.recall_interval),
                f"{row.precision:.1%}",
                show_interval(row.precision_interval),
                f"{row.f1:.3f}",
                escape(taken),
                *([NONE if was is None else f"{was:.1%}"] if other else []),
            ]
        )
    shown = chart("classes", class_chart(rows[:CLASSES], other))
    numbers = [1, 2, 3, 4, 5, 6, *([8] if other else [])]
    return shown + folded(table(header, cells, numbers=numbers, texts=[0, 7]), len(cells))


def confusion(run: Run) -> str:
    """The matrix, and the most frequent mistakes."""
    if run.confusion is None or not run.confusion.names:
        return absent(run, CONFUSION)
    size = len(run.confusion.names)
    if size <= CELLS:
        shown = chart("confusion", confusion_chart(run.confusion))
    else:
        shown = f'<p class="note">{size:,} classes are too many for a chart here.</p>'
    mistakes = run.confusion.mistakes()
    rows = [
        [
            escape(one.actual),
            escape(one.predicted),
            f"{one.photos:,}",
            bar(one.share, text=f"{one.share:.1%}", colour=VAL),
        ]
        for one in mistakes[:MISTAKES]
    ]
    if not rows:
        return shown + '<p class="note">No photo was mistaken.</p>'
    header = ["true class", "called", "photos", "share of the true class"]
    listed = table(header, rows, numbers=[2], texts=[0, 1])
    return f"{shown}\n<h3>The {len(rows)} most frequent mistakes</h3>\n{listed}"


def calibration(run: Run) -> str:
    """Accuracy by confidence."""
    if not run.calibration:
        return absent(run, RELIABILITY)
    shown = chart("calibration", calibration_chart(run.calibration))
    if run.calibration[0].photos is None:
        shown += (
            f'<p class="note">Without intervals: they need {PREDICTIONS}, which is not in Git.</p>'
        )
    return shown


def figures(run: Run) -> str:
    """Every figure, as it is; those of layers beside each other."""
    if not run.figures:
        return absent(run, FIGURES)
    names = sorted_figures(run.figures)
    large = [_figure(name, run.figures[name]) for name in names if name in CAPTIONS]
    layers = [_figure(name, run.figures[name]) for name in names if name not in CAPTIONS]
    return "".join(large) + (pair(*layers) if layers else "")


def _figure(name: str, data: bytes) -> str:
    shown, text = shrunk(data), caption(name)
    if shown is not data:
        text += f" (smaller here than its {show_size(len(data))})"
    encoded = base64.b64encode(shown).decode()
    return (
        f'<figure id="figure-{escape(name)}">\n<figcaption>{escape(text)}</figcaption>\n'
        f'<img alt="{escape(text)}" src="data:image/png;base64,{encoded}">\n</figure>\n'
    )


def data_note(run: Run) -> str:
    """What was left out."""
    gone = [
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in run.left_out.items() if count
    ]
    left = f"Left out: {', '.join(gone)}." if gone else "No photo was left out."
    return left if run.left_out else ""


def data(run: Run) -> str:
    """Where the photos come from, and how many there are."""
    rows = []
    for path in run.archives:
        rows.append(["archive", f"<code>{escape(path)}</code>"])
        rows.append(["MD5 of it", f"<code>{escape(run.inputs.get(path, NONE))}</code>"])
    for path in (PREPARED, MODEL):
        out = run.outs.get(path)
        if out:
            rows.append(
                [
                    f"MD5 of {path}",
                    f"<code>{escape(out.md5.removesuffix('.dir'))}</code> {show_size(out.size)}",
                ]
            )
    for key, label in (("data.image_size", "pixels stored"), ("data.seed", "seed of the split")):
        if key in run.params:
            rows.append([label, escape(show_value(run.params[key]))])
    origin = table(["", ""], rows, numbers=(), texts=[1]) if rows else ""
    if not run.photos:
        return origin + absent(run, DATA)
    counts = [
        ["<strong>all</strong>", *(f"{run.total(split):,}" for split in SPLITS)],
        *(
            [escape(name), *(f"{by[split]:,}" for split in SPLITS)]
            for name, by in run.photos.items()
        ),
    ]
    reasons = [[escape(why.replace("_", " ")), f"{n:,}"] for why, n in run.left_out.items()]
    left_out = f"<h3>Left out</h3>{table(['why', 'photos'], reasons, numbers=[1])}"
    listed = table(["class", *SPLITS], counts, numbers=[1, 2, 3], texts=[0])
    side = f"<div>{folded(listed, len(counts))}</div><div>{left_out if reasons else ''}</div>"
    return origin + chart("photos", photos_chart(run)) + pair(side)
