"""Test the classifier once, and write what it says as metrics, plots and a table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import BundleError
from fieldguide.core.files import write_csv, write_json
from fieldguide.core.params import EvaluateParams
from fieldguide.core.store import Split, Store
from fieldguide.evaluation.metrics import Evaluation, evaluate, reliability
from fieldguide.evaluation.predict import predict_split
from fieldguide.evaluation.predictions import Predictions, write_predictions
from fieldguide.network.bundle import Bundle

_SCORES = ("acc", "macro_f1", "top3_acc", "ece")


class Outputs(NamedTuple):
    """Where `evaluate_bundle` writes."""

    metrics: Path
    predictions: Path
    confusion: Path
    reliability: Path
    per_class: Path


def evaluate_bundle(
    bundle: Bundle, store: Store, params: EvaluateParams, *, outputs: Outputs
) -> None:
    """Predict the test split and write every output.

    Raises:
        BundleError: the classifier was trained on other classes or another image size.
    """
    check_fit(bundle, store)
    test = store.split("test")
    predictions = Predictions(
        sources=test.sources,
        classes=store.classes,
        labels=test.labels,
        probabilities=predict_split(bundle, test),
    )
    result = evaluate(predictions, bins=params.calibration_bins)
    metrics = {"test": _scores(result, _SCORES)}
    averaged = _flip_averaged(bundle, predictions, test, params) if params.flip_averaging else None
    if averaged is not None:
        metrics["test_flip_averaged"] = _scores(averaged, ("acc",))
    write_json(outputs.metrics, metrics)
    write_predictions(predictions, outputs.predictions)
    names = predictions.classes
    pairs = zip(predictions.labels, predictions.predicted, strict=True)
    write_csv(outputs.confusion, ["actual", "predicted"], ([names[a], names[b]] for a, b in pairs))
    points = reliability(predictions, bins=params.calibration_bins)
    rows = [[f"{x:.6f}", f"{y:.6f}"] for x, y in points]
    write_csv(outputs.reliability, ["confidence", "accuracy"], rows)
    write_csv(
        outputs.per_class,
        ["class", "precision", "recall", "photos"],
        ([c.name, f"{c.precision:.6f}", f"{c.recall:.6f}", c.photos] for c in result.per_class),
    )
    _print(result)
    if averaged is not None:
        print(f"averaged over photo and mirror image: {_interval(averaged)}")


def _flip_averaged(
    bundle: Bundle, predictions: Predictions, test: Split, params: EvaluateParams
) -> Evaluation:
    """Evaluate the mean of what the classifier says of a photo and of its mirror image."""
    mirrored = predict_split(bundle, test, mirrored=True)
    mean = (predictions.probabilities + mirrored) / 2
    return evaluate(predictions._replace(probabilities=mean), bins=params.calibration_bins)


def _scores(result: Evaluation, names: tuple[str, ...]) -> dict[str, float]:
    return {name: round(getattr(result, name), 6) for name in names}


def _interval(result: Evaluation) -> str:
    return (
        f"test accuracy {result.acc:.2%} (95 % interval {result.acc_low:.2%} to "
        f"{result.acc_high:.2%})"
    )


def check_fit(bundle: Bundle, store: Store) -> None:
    """Refuse a classifier that does not belong to this store.

    Raises:
        BundleError: other classes, or another image size.
    """
    found = (bundle.classes, bundle.image_size)
    allowed = (store.classes, store.image_size)
    if found != allowed:
        raise BundleError(
            f"the classifier takes {found[1]} pixels and knows {', '.join(found[0])}; the prepared "
            f"store has {allowed[1]} pixels and {', '.join(allowed[0])}; run `dvc repro train`"
        )


def _print(result: Evaluation) -> None:
    table = Table("class", box=box.SIMPLE_HEAD)
    for name in ("precision", "recall", "photos"):
        table.add_column(name, justify="right")
    for row in result.per_class:
        table.add_row(row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.photos:,}")
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(
        f"{_interval(result)}, macro F1 {result.macro_f1:.3f}, top 3 {result.top3_acc:.2%}, "
        f"ECE {result.ece:.3f}, on {result.photos:,} photos",
        soft_wrap=True,
    )
