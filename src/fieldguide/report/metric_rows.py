"""Metrics as text: label, value, interval, and difference from another run."""

from __future__ import annotations

from typing import Any, NamedTuple

from fieldguide.evaluation.intervals import Interval
from fieldguide.results.numbers import MINUS, is_number, number, signed
from fieldguide.results.results import Missing, Results, known

NONE = "–"
_MINUTE = 60  # seconds


class Metric(NamedTuple):
    """How a metric is shown."""

    key: str
    label: str
    share: bool = False  # a fraction in [0, 1], shown in percent
    better: int = 0  # 1: higher is better; -1: lower is better; 0: neither


class MetricRow(NamedTuple):
    """One metric of a run and of the run that it is compared with, as texts."""

    metric: Metric
    value: str
    interval: str
    other: str
    difference: str
    better: bool | None  # than the other; None if neither is better


METRICS = (
    Metric("test.acc", "test accuracy", True, 1),
    Metric("test.bal_acc", "test balanced accuracy", True, 1),
    Metric("test.macro_f1", "test macro F1", better=1),
    Metric("test.top3_acc", "test top-3 accuracy", True, 1),
    Metric("test.ece", "test calibration error (ECE)", better=-1),
    Metric("test.coverage", "test photos that are not unsure", True, 1),
    Metric("test.photos", "test photos"),
    Metric("test_flip_averaged.acc", "test accuracy, averaged with mirror images", True, 1),
    Metric("best.val_acc", "validation accuracy, kept epoch", True, 1),
    Metric("best.val_bal_acc", "validation balanced accuracy, kept epoch", True, 1),
    Metric("best.val_macro_f1", "validation macro F1, kept epoch", better=1),
    Metric("best.val_loss", "validation loss, kept epoch", better=-1),
    Metric("best.epoch", "kept epoch"),
    Metric("last.train_acc", "training accuracy, last epoch", share=True),
    Metric("last.train_loss", "training loss, last epoch"),
    Metric("last.val_acc", "validation accuracy, last epoch", share=True),
    Metric("last.val_bal_acc", "validation balanced accuracy, last epoch", share=True),
    Metric("last.val_macro_f1", "validation macro F1, last epoch"),
    Metric("last.val_loss", "validation loss, last epoch"),
    Metric("parameters.all", "parameters of the network"),
    Metric("parameters.trained", "parameters that were trained"),
)


def metric_rows(run: Results, other: Results | None) -> list[MetricRow]:
    """Return every metric that either run has, in the order of METRICS, then unknown ones."""
    values, before = _values(run), _values(other) if other else {}
    keys = values.keys() | before.keys()
    metrics = [metric for metric in METRICS if metric.key in keys]
    metrics += [Metric(key, key) for key in sorted(keys - {metric.key for metric in METRICS})]
    return [
        _row(metric, values.get(metric.key), before.get(metric.key), run.interval(metric.key))
        for metric in metrics
    ]


def show_interval(interval: Interval | None, *, share: bool = True) -> str:
    """Return both ends as text, in percent for a share."""
    if interval is None:
        return NONE
    low, high = interval
    return f"{low:.1%} to {high:.1%}" if share else f"{low:.3f} to {high:.3f}"


def show_seconds(seconds: float | None) -> str:
    """Return a duration as text, in minutes from one minute on."""
    if seconds is None:
        return NONE
    return f"{seconds:.1f} s" if seconds < _MINUTE else f"{seconds / _MINUTE:,.1f} minutes"


def show_value(value: Any) -> str:
    """Return a param or a fact as text, as YAML writes it."""
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(run: Results) -> dict[str, Any]:
    """Return metrics by key: those of the metrics files, and those that other results imply."""
    values = {key: value for key, value in run.metrics.items() if key != "step"}
    if not isinstance(run.confusion, Missing):
        values["test.photos"] = run.confusion.photos
    kept = run.kept_epoch
    if kept is None:
        return values
    values["best.epoch"] = kept
    for name, by_epoch in known(run.curves, {}).items():
        if name not in ("learning_rate", "kept"):
            values[f"last.{name}"] = by_epoch[-1]
    return values


def _row(metric: Metric, value: Any, other: Any, interval: Interval | None) -> MetricRow:
    difference, better = NONE, None
    if is_number(value) and is_number(other):
        change = value - other
        difference = f"{100 * change:+.1f} points" if metric.share else signed(change)
        difference = difference.replace("-", MINUS)
        better = change * metric.better > 0 if change and metric.better else None
    return MetricRow(
        metric=metric,
        value=_show(metric, value),
        interval=show_interval(interval, share=metric.share),
        other=_show(metric, other),
        difference=difference,
        better=better,
    )


def _show(metric: Metric, value: Any) -> str:
    if value is None:
        return NONE
    if not is_number(value):
        return f"not a number: {value!r}"
    return f"{value:.1%}" if metric.share else number(value)
