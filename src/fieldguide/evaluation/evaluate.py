"""Test the classifier once, and write metrics, predictions and plots."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.errors import BundleError
from fieldguide.core.files import write_csv, write_json
from fieldguide.core.memory import keep_freed_memory
from fieldguide.core.params import EvaluateParams
from fieldguide.core.store import Store, groups_note
from fieldguide.evaluation.calibration import Bin, calibration_error, reliability
from fieldguide.evaluation.intervals import wilson
from fieldguide.evaluation.metrics import Evaluation, evaluate
from fieldguide.evaluation.predict import predict_split, score_split
from fieldguide.evaluation.predictions import Predictions, write_predictions
from fieldguide.evaluation.trust import (
    Point,
    Trust,
    accept,
    aurc,
    negative_log_likelihood,
    risk_coverage,
)
from fieldguide.network.bundle import Bundle

# Scores that DVC compares between runs.
_DECLARED = ("acc", "bal_acc", "macro_f1", "top3_acc", "ece")


def evaluate_bundle(
    bundle: Bundle,
    store: Store,
    params: EvaluateParams,
    *,
    metrics: Path,
    plots: Path,
    portable: bool = False,
) -> None:
    """Predict the test split of a store, write all outputs and print the scores.

    Args:
        bundle: the classifier.
        store: from the same photos as the classifier.
        params: of this stage.
        metrics: folder for test.json, trust.json and predictions.csv.
        plots: folder for confusion.csv, reliability.csv, risk_coverage.csv and per_class.csv.
        portable: use the CPU, whose bytes are the same on every machine.

    Raises:
        BundleError: the classifier was trained on other classes or another image size.
        StoreError: the test split is empty or damaged.
    """
    _check_fit(bundle, store)
    keep_freed_memory()
    test, bins = store.split("test"), params.calibration_bins
    raw = score_split(bundle, test, portable=portable)
    probabilities = bundle.probabilities(raw).numpy()
    predictions = Predictions(test.sources, store.classes, test.labels, probabilities)
    result, averaged = evaluate(predictions, bins=bins), None
    uncalibrated = predictions._replace(probabilities=raw.softmax(dim=1).numpy())
    trust = _trust(bundle, predictions, uncalibrated, bins=bins)
    scores = {"test": {name: round(getattr(result, name), 6) for name in _DECLARED}}
    scores["test"]["coverage"] = round(trust.coverage, 6)
    if params.flip_averaging:
        mirrored = predict_split(bundle, test, mirrored=True, portable=portable)
        mean = (probabilities + mirrored) / 2
        averaged = evaluate(predictions._replace(probabilities=mean), bins=bins)
        scores["test_flip_averaged"] = {"acc": round(averaged.acc, 6)}

    write_json(metrics / "test.json", scores)
    write_json(metrics / "trust.json", trust._asdict())
    write_predictions(predictions, metrics / "predictions.csv")
    names = predictions.classes
    pairs = zip(predictions.labels, predictions.predicted, strict=True)
    rows = ([names[label], names[guess]] for label, guess in pairs)
    write_csv(plots / "confusion.csv", ["actual", "predicted"], rows)
    write_csv(plots / "reliability.csv", Bin._fields, reliability(predictions, bins=bins))
    write_csv(plots / "risk_coverage.csv", Point._fields, risk_coverage(predictions))
    columns = ["class", "precision", "recall", "photos"]
    # Precision and recall follow from confusion.csv, but `dvc plots` draws only what is in a file.
    write_csv(plots / "per_class.csv", columns, result.per_class)

    _print(result)
    print(trust.losses())
    print(trust.summary())
    if averaged is not None:
        print(f"averaged over photo and mirror image: {_accuracy(averaged)}")
    if note := groups_note(len(test), store.test_groups):
        print(note)


def _check_fit(bundle: Bundle, store: Store) -> None:
    """Raise a BundleError if the classifier was not trained on such a store."""
    found = (bundle.classes, bundle.image_size)
    allowed = (store.classes, store.image_size)
    if found != allowed:
        raise BundleError(
            f"the classifier takes {found[1]} pixels and knows {', '.join(found[0])}; the prepared "
            f"store has {allowed[1]} pixels and {', '.join(allowed[0])}; run `dvc repro train`"
        )


def _trust(
    bundle: Bundle, predictions: Predictions, uncalibrated: Predictions, *, bins: int
) -> Trust:
    """Measure calibration, and what can be left to the classifier, on the test photos."""
    found = bundle.calibration
    min_confidence = found.min_confidence if found else None
    accepted, right = accept(predictions, min_confidence)
    return Trust(
        photos=len(predictions.labels),
        temperature=found.temperature if found else None,
        nll=round(negative_log_likelihood(predictions), 6),
        nll_before=round(negative_log_likelihood(uncalibrated), 6),
        ece=round(calibration_error(predictions, bins=bins), 6),
        ece_before=round(calibration_error(uncalibrated, bins=bins), 6),
        target_precision=found.target_precision if found else None,
        min_confidence=min_confidence,
        accepted=accepted,
        right=right,
        aurc=round(aurc(predictions), 6),
    )


def _accuracy(result: Evaluation) -> str:
    low, high = wilson(round(result.acc * result.photos), result.photos) or (0, 1)
    return f"test accuracy {result.acc:.2%} (95 % interval {low:.2%} to {high:.2%})"


def _print(result: Evaluation) -> None:
    table = Table("class", box=box.SIMPLE_HEAD)
    for name in ("precision", "recall", "photos"):
        table.add_column(name, justify="right")
    for row in result.per_class:
        table.add_row(row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.photos:,}")
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(
        f"{_accuracy(result)}, balanced accuracy {result.bal_acc:.2%}, macro F1 "
        f"{result.macro_f1:.3f}, top 3 {result.top3_acc:.2%}, ECE {result.ece:.3f}, on "
        f"{result.photos:,} photos",
        soft_wrap=True,
    )
