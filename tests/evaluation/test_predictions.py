"""metrics/predictions.csv is read as it was written, and other files are refused."""

import csv

import numpy as np
import pytest

from fieldguide.core.errors import StoreError
from fieldguide.evaluation.predictions import Predictions, read_predictions, write_predictions

NAMES = ["plain", 'with "quotes"', "with, comma", "p_prefix", "Kūrmušis 🐭", "new\nline"]


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return Predictions(
        sources=[
            "a,b.jpg",
            'c"d".jpg',
            "é/ü.png",
            "line\nbreak.jpg",
            " space ",
            "'",
            "train/x.jpg",
        ],
        classes=NAMES,
        labels=np.array([0, 1, 2, 3, 4, 5, 0]),
        probabilities=rng.dirichlet(np.ones(len(NAMES)), size=7),
    )


def test_round_trip_with_names_that_need_quoting(predictions, tmp_path):
    write_predictions(predictions, tmp_path / "new folder" / "predictions.csv")
    found = read_predictions(tmp_path / "new folder" / "predictions.csv")
    assert found.sources == predictions.sources
    assert found.classes == predictions.classes
    assert found.labels.tolist() == predictions.labels.tolist()
    assert found.labels.dtype == np.int64
    assert np.array_equal(found.probabilities, predictions.probabilities)
    assert found.predicted.tolist() == predictions.predicted.tolist()


def test_columns_of_the_file(tmp_path):
    path = tmp_path / "predictions.csv"
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])
    write_predictions(Predictions(["x.jpg", "y.jpg"], ["a", "b"], [0, 0], probabilities), path)
    assert path.read_bytes() == (
        b"source,true,predicted,p_a,p_b\nx.jpg,a,b,0.25,0.75\ny.jpg,a,a,1.0,0.0\n"
    )


def test_predicted_and_confidence_by_hand():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])
    predictions = Predictions([*"xyz"], [*"abc"], np.zeros(3, dtype=np.int64), probabilities)
    assert predictions.predicted.tolist() == [1, 0, 2]
    assert predictions.confidence.tolist() == [0.5, 0.4, 0.8]


def test_a_near_tie_keeps_its_predicted_class(tmp_path):
    path = tmp_path / "predictions.csv"
    close = Predictions(["x"], ["a", "b"], np.array([1]), np.array([[0.49999999, 0.50000001]]))
    write_predictions(close, path)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["predicted"] == "b"
    assert read_predictions(path).predicted.tolist() == [1]


def test_no_photos_round_trip(tmp_path):
    empty = Predictions([], ["a", "b"], np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    write_predictions(empty, tmp_path / "predictions.csv")
    found = read_predictions(tmp_path / "predictions.csv")
    assert found.probabilities.shape == (0, 2)
    assert found.classes == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"source,predicted,true,p_a\n",
        b"source,true,predicted,p_a,p_b\nx,a,a,0.5\n",
        b"source,true,predicted,p_a,p_b\nx,a,a,0.5\ny,a,a,0.5\n",
        b"source,true,predicted,p_a\nx,unknown,a,1.0\n",
        b"source,true,predicted,p_a\nx,a,a,much\n",
        b"source,true,predicted,p_a\n\n",
        b"\xff\xfe\x00",
    ],
    ids=[
        "empty",
        "other-columns",
        "short-line",
        "short-lines",
        "class",
        "number",
        "blank-line",
        "not-utf8",
    ],
)
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"predictions\.csv: not a table of predictions"):
        read_predictions(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a table of predictions"):
        read_predictions(tmp_path / "none.csv")
