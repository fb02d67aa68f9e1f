"""The model card that `fieldguide serve` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldguide.core.files import folder_md5
from fieldguide.inference.classifier import Classifier
from fieldguide.results.paths import MODEL
from fieldguide.results.results import Missing, Results, refuse_damaged
from fieldguide.results.revision import WORKSPACE, Revision

if TYPE_CHECKING:  # the bundle imports PyTorch, which an .onnx file does not need
    from fieldguide.network.bundle import Bundle


@dataclass(frozen=True)
class TestScores:
    """Accuracy on the test set."""

    __test__ = False  # pytest would take the class for tests

    photos: int
    acc: float  # in [0, 1]
    acc_low: float  # 95 % interval
    acc_high: float


@dataclass(frozen=True)
class Card:
    """Facts about a classifier; None stands for an unknown one."""

    architecture: str
    input_size: int  # pixels
    val_acc: float | None
    started_from: str | None
    test: TestScores | None
    trust: str | None  # what can be taken without a look, by the test set


def make_card(classifier: Classifier, model: Path) -> Card:
    """Collect the facts.

    Args:
        classifier: the card of a bundle names its architecture and how it was trained.
        model: its folder PROJECT/models/NAME, or its file. The project's test results are shown
            only if dvc.lock names this very classifier.

    Raises:
        RevisionError: the results of `evaluate` were changed since or are damaged.
    """
    bundle: Bundle | None = getattr(classifier, "bundle", None)
    if bundle is None:
        return Card("exported", classifier.image_size, None, None, None, None)
    results = Results(Revision(model.absolute().parent.parent, WORKSPACE, None))
    tested = results.outputs.get(MODEL)
    scores = trust = None
    if tested is not None and tested.md5 == folder_md5(model):
        scores, trust = _test_scores(results), _trust(results)
    size = bundle.preprocessing.size
    return Card(bundle.name, size, bundle.val_acc, bundle.started_from, scores, trust)


def _test_scores(results: Results) -> TestScores | None:
    confusion, interval = results.confusion, results.interval("test.acc")
    refuse_damaged(confusion, results.test_metrics)
    if isinstance(confusion, Missing) or interval is None:
        return None
    return TestScores(confusion.photos, results.metrics["test.acc"], *interval)


def _trust(results: Results) -> str | None:
    refuse_damaged(results.trust)
    return None if isinstance(results.trust, Missing) else results.trust.summary()
