"""Metrics as a reader sees them: names, digits, intervals, and differences between two runs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from rich.filesize import decimal

from fieldguide.results.classes import Interval, macro_f1_interval, wilson
from fieldguide.results.run import Run

NONE = "–"
_SECONDS = 60


class Metric(NamedTuple):
    """How one is shown."""

    key: str
    label: str
    kind: str = "number"  # or share: a fraction shown in percent; or count
    better: int = 0  # 1: the higher; -1: the lower; 0: neither


class Row(NamedTuple):
    """One metric of a run, and of another that it is compared with."""

    metric: Metric
    value: str
    interval: str
    other: str
    difference: str
    better: bool | None  # than the other; None where that has no meaning


KNOWN = (
    Metric("test.acc", "test accuracy", "share", 1),
    Metric("test.macro_f1", "test macro F1", better=1),
    Metric("test.top3_acc", "test accuracy, first three guesses", "share", 1),
    Metric("test.ece", "test calibration error (ECE)", better=-1),
    Metric("test.photos", "test photos", "count"),
    Metric("test_flip_averaged.acc", "test accuracy, averaged with mirror images", "share", 1),
    Metric("best.val_acc", "validation accuracy, kept epoch", "share", 1),
    Metric("best.val_loss", "validation loss, kept epoch", better=-1),
    Metric("best.epoch", "kept epoch", "count"),
    Metric("train.acc", "training accuracy, last epoch", "share"),
    Metric("train.loss", "training loss, last epoch"),
    Metric("val.acc", "validation accuracy, last epoch", "share"),
    Metric("val.loss", "validation loss, last epoch"),
    Metric("parameters.all", "parameters of the network", "count"),
    Metric("parameters.trained", "parameters that were trained", "count"),
)
_BY_KEY = {metric.key: metric for metric in KNOWN}
_ENDS = {f"{part}.acc_{end}" for part in ("test", "test_flip_averaged") for end in ("low", "high")}
_TOLD_ELSEWHERE = _ENDS | {"step", "learning_rate"}


def rows_of(run: Run, other: Run | None) -> list[Row]:
    """Return every metric that either run has, those that people ask for first."""
    keys = dict.fromkeys([*run.scores, *(other.scores if other else ())])
    known = [metric for metric in KNOWN if metric.key in keys]
    own = [
        Metric(key, key)
        for key in sorted(keys)
        if key not in _BY_KEY and key not in _TOLD_ELSEWHERE
    ]
    return [_row(metric, run, other) for metric in [*known, *own]]


def number(value: Any) -> float | None:
    """Return what is a finite number; a text, a truth value or NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def show(metric: Metric, value: Any) -> str:
    """Return a value as text; one that is no number is shown as what it is."""
    found = number(value)
    if found is None:
        return NONE if value is None else f"no number: {value!r}"
    return _digits(metric, found)


def interval_of(run: Run, key: str) -> Interval | None:
    """Return a metric's 95 % interval over test photos, where there is one."""
    low, high = (number(run.scores.get(f"{key}_{end}")) for end in ("low", "high"))
    if low is not None and high is not None:
        return Interval(low, high)
    value, photos = number(run.scores.get(key)), number(run.scores.get("test.photos"))
    if key in {"test.acc", "test.top3_acc"} and value is not None and photos and 0 <= value <= 1:
        return wilson(round(value * photos), round(photos))
    if key == "test.macro_f1" and value is not None and run.confusion is not None:
        return macro_f1_interval(run.confusion)
    return None


def show_interval(interval: Interval | None, *, share: bool = True) -> str:
    """Return both ends as text."""
    if interval is None:
        return NONE
    low, high = interval
    return f"{low:.1%} to {high:.1%}" if share else f"{low:.3f} to {high:.3f}"


def show_seconds(value: Any) -> str:
    """Return seconds as people say them."""
    found = number(value)
    if found is None:
        return NONE
    return f"{found:.1f} s" if found < _SECONDS else f"{found / _SECONDS:,.1f} minutes"


def show_number(value: Any) -> str:
    """Return a number of no known metric."""
    return show(Metric("", ""), value)


def show_size(size: int | None) -> str:
    """Return bytes as people say them."""
    return NONE if size is None else decimal(size)


def headline(run: Run) -> list[tuple[str, str]]:
    """Return the names and values that stand above all."""
    pairs = [
        ("test accuracy", "test.acc"),
        ("macro F1", "test.macro_f1"),
        ("ECE", "test.ece"),
        ("validation accuracy", "best.val_acc"),
        ("parameters", "parameters.all"),
    ]
    found = [(label, show(_BY_KEY[key], run.scores.get(key))) for label, key in pairs]
    interval = interval_of(run, "test.acc")
    if interval:
        found.insert(1, ("95 % interval", show_interval(interval)))
    return [*found, ("training", show_seconds(run.timing.get("train.seconds")))]


def _row(metric: Metric, run: Run, other: Run | None) -> Row:
    value = run.scores.get(metric.key)
    before = other.scores.get(metric.key) if other else None
    interval = interval_of(run, metric.key)
    mine, theirs = number(value), number(before)
    difference = mine - theirs if mine is not None and theirs is not None else None
    return Row(
        metric=metric,
        value=show(metric, value),
        interval=show_interval(interval, share=metric.kind == "share"),
        other=show(metric, before),
        difference=NONE if difference is None else _signed(metric, difference),
        better=difference * metric.better > 0 if difference and metric.better else None,
    )


def _digits(metric: Metric, value: float) -> str:
    if metric.kind == "share":
        return f"{value:.1%}"
    if metric.kind == "count" or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.3g}"  # noqa: PLR2004


def _signed(metric: Metric, difference: float) -> str:
    if difference == 0:
        return "0"
    size = abs(difference)
    text = f"{100 * size:.1f} points" if metric.kind == "share" else _digits(metric, size)
    return f"{'+' if difference > 0 else '−'}{text}"
