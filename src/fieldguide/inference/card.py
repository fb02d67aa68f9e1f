"""The model card that `fieldguide serve` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import Fraction
from fieldguide.inference.classifier import Classifier

if TYPE_CHECKING:  # it imports PyTorch, which an .onnx file does without
    from fieldguide.network.bundle import Bundle


class TestScores(BaseModel):
    """What the card tells of metrics/test.json."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    photos: int = Field(ge=1)
    acc: Fraction
    acc_low: Fraction  # 95 % interval
    acc_high: Fraction


class _TestMetrics(BaseModel):
    test: TestScores


@dataclass(frozen=True)
class Card:
    """The model card; None where nothing is known."""

    architecture: str
    input_size: int  # pixels
    val_acc: float | None
    started_from: str | None
    test: TestScores | None


def make_card(classifier: Classifier, metrics: Path) -> Card:
    """Collect the card.

    Args:
        classifier: a bundle's tells its architecture and how it was trained.
        metrics: metrics/test.json of its project; it may be missing.

    Raises:
        FieldguideError: the metrics are there and are none.
    """
    bundle: Bundle | None = getattr(classifier, "bundle", None)
    test = _read_scores(metrics)
    if bundle is None:
        return Card("exported", classifier.image_size, None, None, test)
    return Card(bundle.name, bundle.preprocessing.size, bundle.val_acc, bundle.started_from, test)


def _read_scores(path: Path) -> TestScores | None:
    try:
        return _TestMetrics.model_validate_json(path.read_bytes()).test
    except FileNotFoundError:
        return None
    except OSError as err:
        raise FieldguideError(f"{path}: cannot be read ({err.strerror})") from err
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise FieldguideError(f"{path}: not the test's scores ('{key}': {first['msg']})") from err
