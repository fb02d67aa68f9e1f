"""The predictions of a revision."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fieldguide.core.errors import RevisionError, StoreError
from fieldguide.evaluation.predictions import Predictions, read_predictions
from fieldguide.results.revision import Revision

PREDICTIONS = "metrics/predictions.csv"


def fetch_predictions(revision: Revision) -> Predictions:
    """Return what a revision's classifier said of every test photo, from DVC's cache or remote.

    Raises:
        RevisionError: they cannot be had, or are none.
    """
    data = revision.fetch(PREDICTIONS)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "predictions.csv"
        copy.write_bytes(data)
        try:
            return read_predictions(copy)
        except StoreError as err:
            raise RevisionError(
                f"{PREDICTIONS} of {revision.label}: not a table of predictions; run `dvc repro`"
            ) from err
